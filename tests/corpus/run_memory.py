"""Make a corpus of a text, train on it for some updates, and print the peak memory of both in MiB.

run_memory.py TEXT FOLDER
"""

import resource
import subprocess
import sys

text, folder = sys.argv[1:]
shape = ["--layers=1", "--hidden=32", "--heads=2", "--num-updates=150", "--global-batch-size=32", "--micro-batch-tokens=4096"]
for arguments in (
    ["components.corpus", f"--source={text}", "--vocabulary-size=1000", f"--output-dir={folder}/corpus"],
    ["components.pretrain", f"--corpus-dir={folder}/corpus", *shape, f"--output-dir={folder}/model"],
):
    subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True)
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)  # of the largest so far
