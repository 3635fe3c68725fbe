# Two images from one file; compose.yaml runs them together.
#   docker build --target cli .          the command line, kernels for the CPU, no GPU needed
#   docker build --target evaluator .    evaluates on NVIDIA GPUs what a spool folder holds; needs no network
# Neither runs as root.

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
# The same user id in both images: they share the spool. Volumes take the owner of the folder they cover.
RUN useradd --create-home --uid 10001 cudaforge \
    && install --directory --owner=cudaforge --group=cudaforge /data /spool
ENV CUDAFORGE_HOME=/data
USER cudaforge
WORKDIR /tasks
ENTRYPOINT ["cudaforge"]
CMD ["--help"]

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
ENTRYPOINT ["cudaforge"]
CMD ["evaluator", "--spool", "/spool"]
