# The service with its engine. For CUDA; for a machine without a GPU:
#   docker build -f docker/service.Dockerfile --build-arg FLAVOUR=cpu -t evoquality/service:0.1.0-cpu .
ARG BASE=python:3.11.13-slim-bookworm
ARG FLAVOUR=gpu

# Dependencies alone and first: a change of the code leaves their layer as it is.
FROM ${BASE} AS dependencies
ARG FLAVOUR
WORKDIR /build
COPY pyproject.toml LICENSE ./
COPY service/build_commands.py service/cpu_torch.py service/
COPY .ci/constraints.txt .ci/cpu-torch .ci/
COPY docker/install docker/constraints-gpu.txt docker/
RUN docker/install "${FLAVOUR}" "${FLAVOUR},heif,otel,parquet"

FROM dependencies AS code
COPY service service
COPY docker/install-code docker/
RUN docker/install-code

# What only one of the flavours has: a small model that needs neither GPU nor hub ...
FROM ${BASE} AS cpu
COPY trainer/demo/checkpoint /opt/evoquality/checkpoint

# ... and what Triton would compile at its first kernel, so that no compiler has to be in the image.
FROM dependencies AS gpu
# Not pinned, for the reason given at the last stage's packages.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
COPY docker/triton_driver.py docker/
RUN /opt/venv/bin/python docker/triton_driver.py /opt/evoquality/triton

FROM ${FLAVOUR} AS flavour

# checkov:skip=CKV_DOCKER_7:the version is in ARG BASE, which checkov does not look up
FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="EvoQuality service" \
      org.opencontainers.image.description="Image quality assessment whose model improves itself while it serves" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# vLLM's CPU kernels are linked with libnuma. Versions within a Debian release differ by fixes alone, and mirrors keep
# the latest only: a pinned one would break the build with the next fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/*

# A volume of Docker's takes its owner from the folder it covers. The number, not the name, is what a cluster checks.
RUN groupadd --gid 10001 evoquality \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin evoquality \
    && install --directory --owner 10001 --group 10001 /store /var/lib/evoquality

COPY --from=dependencies /opt/venv /opt/venv
COPY --from=flavour /opt/evoquality /opt/evoquality
COPY --from=code /opt/code /opt/venv

# Caches lie below HOME: with volumes at /tmp and /store the rest may be read-only.
# FlashInfer's sampler would be compiled by nvcc at its first use; vLLM's own takes its place.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    EVOQUALITY_HOST=0.0.0.0 \
    EVOQUALITY_OPERATOR_HOST=0.0.0.0 \
    EVOQUALITY_STORE=/store \
    TRITON_CACHE_MANAGER=service.engine.triton_cache:ShippedCache \
    VLLM_USE_FLASHINFER_SAMPLER=0

USER 10001:10001
WORKDIR /tmp
EXPOSE 8000 8001
# Ready, not live: what depends on the service (compose) waits for answers. The first start loads, and may import, weights.
# Without a proxy: Docker hands its client's to every container.
HEALTHCHECK --interval=10s --timeout=15s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:8000/health/ready', timeout=12)"]
ENTRYPOINT ["evoquality"]
CMD ["serve"]
