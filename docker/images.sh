#!/bin/sh
# docker/images.sh build|push, with docker, podman or buildah, whichever is there and works.
# REGISTRY, BASE_IMAGE, TORCH_INDEX and IMAGES may be set; `make images` and `make push` do that. So may TOOL, BUILD_FLAGS and
# PUSH_FLAGS, for what is special about yours: a proxy's certificate to mount, a registry without TLS.
set -eu
cd "$(dirname "$0")/.."
registry=${REGISTRY:-localhost:5000}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
commit=$(git rev-parse HEAD)$(git diff --quiet HEAD || echo -dirty)

if [ -z "${TOOL:-}" ]; then
  for TOOL in docker podman buildah none; do
    [ $TOOL = none ] && { echo "error: docker, podman or buildah is needed, and none of them works here" >&2; exit 2; }
    "$TOOL" info >/dev/null 2>&1 && break
  done
fi

for image in ${IMAGES:-stage train mlflow}; do
  name=$registry/adapt-python-$image:$version
  case $1 in
  build)
    # shellcheck disable=SC2086  # BUILD_FLAGS is a list
    "$TOOL" build -f docker/Dockerfile --target "$image" -t "$name" --build-arg VERSION="$version" \
      --build-arg GIT_COMMIT="$commit" ${BASE_IMAGE:+--build-arg BASE_IMAGE="$BASE_IMAGE"} \
      ${TORCH_INDEX:+--build-arg TORCH_INDEX="$TORCH_INDEX"} ${BUILD_FLAGS:-} .
    echo "$name" ;;
  push)
    mkdir -p build
    if [ "$TOOL" = docker ]; then
      # shellcheck disable=SC2086
      docker push ${PUSH_FLAGS:-} "$name"
      docker inspect --format '{{index .RepoDigests 0}}' "$name" | sed 's/.*@//' >"build/$image.digest"
    else
      # shellcheck disable=SC2086
      "$TOOL" push --digestfile "build/$image.digest" ${PUSH_FLAGS:-} "$name"
    fi
    echo "$registry/adapt-python-$image@$(cat "build/$image.digest")" ;;
  esac
done

if [ "$1" = push ] && [ -f build/stage.digest ] && [ -f build/train.digest ]; then
  echo "--image $registry/adapt-python-stage@$(cat build/stage.digest)" \
    "--train-image $registry/adapt-python-train@$(cat build/train.digest)" >build/images  # for `make compile`
fi
