# Three images from one file; compose.yaml runs them together.
#   docker build --target cli .          the command line and workers, kernels for the CPU, no GPU needed
#   docker build --target service .      the same image, as a service on port 8000
#   docker build --target evaluator .    evaluates on NVIDIA GPUs what a spool folder holds; needs no network
# None runs as root. Run them with an init (`docker run --init`): candidates leave processes that somebody must reap.

FROM python:3.12-slim AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim AS cli
# g++ stays in the image: building kernels is what it is for.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
COPY constraints.txt /tmp/
COPY --from=wheel /wheels /wheels
# The CPU build of torch is a tenth of the size of the CUDA build, and this image has no use for a GPU.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
        -c /tmp/constraints.txt /wheels/*.whl
# The same user id in all images: they share the spool. Volumes take the owner of the folder they cover.
RUN useradd --create-home --uid 10001 cudaforge \
    && install --directory --owner=cudaforge --group=cudaforge /data /spool
ENV CUDAFORGE_HOME=/data
USER cudaforge
WORKDIR /tasks
ENTRYPOINT ["cudaforge"]
CMD ["--help"]

FROM cli AS service
EXPOSE 8000
# Not through a proxy, which Docker may name to every container. And not GET /api/v1/ready, which needs a live worker:
# workers start once this is healthy.
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-c", "from urllib.request import ProxyHandler, build_opener; \
build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/api/v1/health', timeout=5)"]
# By itself it keeps one worker. It demands tokens, as off loopback it must, and does not start before there is one.
CMD ["serve", "--host", "0.0.0.0"]

# The devel image has nvcc and Nsight Compute. Its CUDA version is the one that torch's wheels are built for.
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04 AS evaluator
# python3-dev: torch.compile, one of the baselines, builds against Python's headers.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY constraints.txt requirements-evaluator.txt /tmp/
COPY --from=wheel /wheels /wheels
RUN python3 -m venv /opt/cudaforge \
    && /opt/cudaforge/bin/pip install --no-cache-dir -c /tmp/constraints.txt -r /tmp/requirements-evaluator.txt \
    && /opt/cudaforge/bin/pip install --no-cache-dir --no-deps /wheels/*.whl
RUN useradd --create-home --uid 10001 cudaforge \
    && install --directory --owner=cudaforge --group=cudaforge /data /spool
ENV CUDAFORGE_HOME=/data PATH=/opt/cudaforge/bin:$PATH
USER cudaforge
WORKDIR /data
# Its heartbeat in the spool is younger than its lease, or the spool cannot be written. The host's name tells ours from
# those of other evaluators that use the spool.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-c", "import json, pathlib, socket, sys, time; \
beats = [(json.loads(p.read_bytes()), p.stat().st_mtime) for p in pathlib.Path('/spool/evaluators').glob('*.json')]; \
sys.exit(not any(b['host'] == socket.gethostname() and time.time() - at <= b['lease_s'] for b, at in beats))"]
ENTRYPOINT ["cudaforge"]
CMD ["evaluator", "--spool", "/spool"]
