# Two images: `serve` answers gRPC calls and has no torch and no compiler; `train` makes, proves and publishes models.
#
#   docker build --target serve --tag mnist1d-service:serve .
#   docker build --target train --tag mnist1d-service:train .
#
# Every package is of the version in constraints.txt. Torch's ordinary packages bring gigabytes of CUDA along: for its
# small CPU build name PyTorch's CPU wheels with `--build-arg PIP_EXTRA_INDEX_URL=...`, or a folder that holds the wheel
# with `--build-context wheels=FOLDER`.

FROM python:3.11-slim-bookworm AS base

# Nothing, unless a build context of that name is given.
FROM scratch AS wheels

FROM base AS build
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_EXTRA_INDEX_URL=$PIP_EXTRA_INDEX_URL PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/mnist1d
COPY pyproject.toml constraints.txt deploy/image/install.sh ./

FROM build AS serve-packages
ARG EXTRAS=serve
RUN --mount=type=bind,from=wheels,target=/wheels ./install.sh /opt/mnist1d "$EXTRAS"

FROM build AS train-packages
ARG EXTRAS=serve,train
RUN --mount=type=bind,from=wheels,target=/wheels ./install.sh /opt/mnist1d "$EXTRAS"

# This project itself, as it is copied over either environment.
FROM build AS code
RUN pip install --constraint constraints.txt hatchling
COPY README.md LICENSE NOTICE ./
COPY models models
COPY service service
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /tmp . \
 && pip --python /opt/mnist1d/bin/python install --no-deps --no-index --no-compile --root /code /tmp/mnist1d_service-*.whl \
 && python -m compileall -q --invalidation-mode unchecked-hash -s /code /code

FROM base AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mnist1d-service" \
      org.opencontainers.image.description="Train small networks, prove their export, serve them over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="the mnist1d-service authors" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# pip has done its work elsewhere. What volumes over these folders begin with is theirs: files of this user.
RUN python -m pip uninstall --yes --quiet pip setuptools wheel \
 && install --directory --owner=10001 --group=10001 /repository /home/mnist1d
# One thread for a process's linear algebra: a server's share of the machine is its workers, not a pool of threads as
# many as the machine has cores.
ENV PATH=/opt/mnist1d/bin:$PATH HOME=/home/mnist1d PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
    MNIST1D_MODELS_REPOSITORY=/repository MNIST1D_SERVE_REPOSITORY=/repository \
    MNIST1D_TRAIN_REPOSITORY=/repository MNIST1D_UP_REPOSITORY=/repository \
    MNIST1D_SERVE_HOST=0.0.0.0 MNIST1D_SERVE_METRICS_HOST=0.0.0.0 \
    MNIST1D_UP_HOST=0.0.0.0 MNIST1D_UP_METRICS_HOST=0.0.0.0
WORKDIR /home/mnist1d
USER 10001:10001
EXPOSE 8001 8002
STOPSIGNAL SIGTERM
ENTRYPOINT ["mnist1d"]

FROM runtime AS train
COPY --from=train-packages /opt/mnist1d /opt/mnist1d
COPY --from=code /code /
CMD ["up", "--train-only"]

FROM runtime AS serve
COPY --from=serve-packages /opt/mnist1d /opt/mnist1d
COPY --from=code /code /
HEALTHCHECK --interval=5s --timeout=4s --start-period=10s --retries=3 \
    CMD ["mnist1d", "health"]
CMD ["serve"]
