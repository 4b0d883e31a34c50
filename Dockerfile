# One image for all of Flixtrail's own services; docker-compose.yml says which of them a container is.
#
# Two stages: what installs the libraries stays behind. Nothing is compiled in either: every library comes as a wheel.

FROM python:3.13.5-slim AS libraries

# app: what the services need. reload: what docker-compose.dev.yml needs besides.
ARG REQUIREMENTS=app
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# The libraries change seldom, our code often: a layer of their own. The wheels are kept in a folder that outlives it, so
# that one more library means one more download, also from an index that lets nobody keep what it sends. Every file has
# its hash: a build gets what was tested, or fails.
COPY requirements/${REQUIREMENTS}.txt requirements.txt
RUN --mount=type=cache,target=/var/cache/wheels \
    python -m pip download --no-deps --only-binary :all: --require-hashes -r requirements.txt -d /var/cache/wheels \
 && python -m venv --without-pip /opt/flixtrail \
 && python -m pip --python /opt/flixtrail/bin/python install --no-deps --no-index --no-cache-dir \
    --find-links /var/cache/wheels --require-hashes -r requirements.txt


FROM python:3.13.5-slim

ENV PATH=/opt/flixtrail/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

# Not root: nothing here needs it. The id is fixed, so that volumes keep their owner, and nginx can be the same.
# The folders are made here because a new named volume takes over the owner of the folder that it covers.
RUN useradd --uid 10001 --create-home flixtrail \
 && install -d -o flixtrail -g flixtrail /var/cache/flixtrail /var/lib/flixtrail/outbox

COPY --from=libraries /opt/flixtrail /opt/flixtrail

WORKDIR /app
COPY celeryconfig.py ./
COPY view_events view_events
COPY service service
COPY safe_consumer safe_consumer
COPY history_worker history_worker
COPY streaming_app streaming_app
COPY local local
COPY flixtrail flixtrail
COPY deploy/healthy.py deploy/flower.py deploy/
# Compiled now: the user below may not write here. And readable for that user, whatever umask the files were cloned with.
RUN chmod -R a+rX . && python -m compileall -q .

USER flixtrail
ENV CACHE=/var/cache/flixtrail \
    OUTBOX=/var/lib/flixtrail/outbox \
    LOG_FORMAT=json
CMD ["python", "-m", "streaming_app"]
