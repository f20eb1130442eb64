# One image for both sides: `serve` is the mock; Locust's master and workers start from
# /opt/loadstone/locustfile.py. docs/stack.md tells how they go together.
#
# A tag with a digest (python:3.13-slim-trixie@sha256:...) makes the base repeatable too.
ARG PYTHON_IMAGE=python:3.13-slim-trixie


FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/loadstone
ENV PATH=/opt/loadstone/bin:$PATH

# What changes seldom comes first. Wheels only: nothing is compiled, so no compiler is needed.
COPY requirements.lock ./
RUN pip install --no-deps --require-hashes --only-binary=:all: --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY loadstone loadstone
COPY loadgen loadgen
COPY mock_server mock_server
COPY dashboards dashboards
RUN pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /dist . \
    && pip install --no-deps --no-index /dist/*.whl \
    && ln -s "$(python -c 'import loadgen; print(loadgen.__path__[0])')/locustfile.py" /opt/loadstone/

# The lock pins the tools that build, too. What runs needs neither them nor pip.
RUN pip uninstall --yes hatchling pathspec tomlkit trove-classifiers \
    && pip uninstall --yes pip


FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="loadstone" \
      org.opencontainers.image.description="A wind tunnel and a measuring instrument for LLM serving" \
      org.opencontainers.image.licenses="Apache-2.0"

# Runs are written to /loadstone/runs: a volume mounted there starts with this owner.
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
    && groupadd --gid 10001 loadstone \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /loadstone --shell /usr/sbin/nologin loadstone \
    && install --directory --owner=10001 --group=10001 /loadstone /loadstone/runs
COPY --from=build /opt/loadstone /opt/loadstone

ENV PATH=/opt/loadstone/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /loadstone
USER 10001:10001
EXPOSE 8000 8089 5557
ENTRYPOINT ["loadstone"]
CMD ["--help"]
