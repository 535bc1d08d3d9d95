"""A TCP proxy between a client and a real server, which cuts connections, counts what passes, or speaks TLS to the client."""

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass
class Proxy:
    """What the client sees of it.

    left, left_up: bytes that the client may still receive and send; then every connection is cut, until there is more.
    sent, received: bytes that have passed.  pause: seconds after each piece of them.
    """

    url: str
    left: float = float("inf")
    left_up: float = float("inf")
    pause: float = 0.0
    sent: int = 0
    received: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def proxy_to(url: str, certificate: Path | None = None) -> Iterator[Proxy]:
    """In front of the server at `url`, while the block lasts; https:// with a certificate (a PEM file that has its key too)."""
    listener = socket.create_server(("127.0.0.1", 0))
    made = Proxy(f"http{'s' if certificate else ''}://127.0.0.1:{listener.getsockname()[1]}")
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    host, _, port = url.partition("://")[2].partition(":")

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            with made.lock:
                if made.left <= 0 or made.left_up <= 0:
                    return
            if context:
                client = context.wrap_socket(client, server_side=True)
            with client, socket.create_connection((host, int(port))) as server:
                up = threading.Thread(target=pump, args=(client, server, True), daemon=True)
                up.start()
                pump(server, client, False)

    def pump(source: socket.socket, target: socket.socket, is_up: bool) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(2**16):
                with made.lock:
                    if is_up:
                        made.sent, made.left_up = made.sent + len(part), made.left_up - len(part)
                    else:
                        made.received, made.left = made.received + len(part), made.left - len(part)
                    if made.left < 0 or made.left_up < 0:
                        break
                target.sendall(part)
                time.sleep(made.pause)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def private_authority(folder: Path) -> tuple[Path, Path]:
    """(certificate of an authority that nobody knows, certificate and key that it gave to 127.0.0.1), as PEM files."""
    now = datetime.datetime.now(datetime.UTC)

    def certificate(
        name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
    ) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        is_authority = name == issuer
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if not is_authority:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(signer, hashes.SHA256())

    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    authority, server = folder / "ca.crt", folder / "server.pem"
    authority.write_bytes(certificate("authority", authority_key, "authority", authority_key).public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server.write_bytes(certificate("127.0.0.1", key, "authority", authority_key).public_bytes(pem) + secret)
    return authority, server
