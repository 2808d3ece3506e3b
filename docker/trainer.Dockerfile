# The trainer: a job that reaches the model through the service's HTTP and the version store, so no engine is in it. For
# CUDA; for a machine without a GPU:
#   docker build -f docker/trainer.Dockerfile --build-arg FLAVOUR=cpu -t evoquality/trainer:0.1.0-cpu .
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
RUN docker/install "${FLAVOUR}" trainer,heif,mlflow,parquet

FROM dependencies AS code
COPY service service
COPY trainer trainer
COPY docker/install-code docker/
RUN docker/install-code

# checkov:skip=CKV_DOCKER_7:the version is in ARG BASE, which checkov does not look up
FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="EvoQuality trainer" \
      org.opencontainers.image.description="Evolves the model of an EvoQuality service on unlabelled images" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# A volume of Docker's takes its owner from the folder it covers. The number, not the name, is what a cluster checks.
RUN groupadd --gid 10001 evoquality \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin evoquality \
    && install --directory --owner 10001 --group 10001 /store /runs /pool

COPY --from=dependencies /opt/venv /opt/venv
COPY --from=code /opt/code /opt/venv

# Caches lie below HOME: with volumes at /tmp, /store and /runs the rest may be read-only.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    EVOQUALITY_TRAINER_STORE=/store

USER 10001:10001
WORKDIR /tmp
# A job has no health to ask for: it ends, and its exit code says how.
HEALTHCHECK NONE
ENTRYPOINT ["evoquality-trainer"]
