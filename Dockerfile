# The server as an image: built in one stage, run without compilers in another.
#
#   docker build -t modelstore .
#   docker run -p 127.0.0.1:7070:7070 -v modelstore:/var/lib/modelstore modelstore
ARG BASE=debian:12-slim

FROM ${BASE} AS build
WORKDIR /src
COPY deploy/install-deps deploy/install-deps
RUN deploy/install-deps --build
COPY . .
RUN cmake -S . -B /build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
      -DMODELSTORE_WITH_TORCH=OFF -DMODELSTORE_BUILD_TESTS=OFF \
    && cmake --build /build --target modelstored \
    && install -D -s /build/server/modelstored /out/modelstored \
    && deploy/runtime-packages /out/modelstored > /out/packages

FROM ${BASE}
COPY --from=build /out/packages /tmp/packages
RUN apt-get -qq -o Acquire::Retries=5 update \
    && DEBIAN_FRONTEND=noninteractive xargs -a /tmp/packages \
         apt-get -qq -o Acquire::Retries=5 install -y --no-install-recommends \
    && rm -rf /var/lib/apt/lists/* /tmp/packages \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin modelstore \
    && install -d -o modelstore -g modelstore /var/lib/modelstore
COPY --from=build /out/modelstored /usr/local/bin/modelstored
USER 10001
VOLUME /var/lib/modelstore
EXPOSE 7070
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["modelstored", "health"]
ENTRYPOINT ["modelstored"]
# Inside a container loopback reaches nobody, so the server listens on every
# address; without TLS and authentication it does so only when told aloud. Publish
# the port to trusted networks alone.
CMD ["--address", "0.0.0.0", "--data-dir", "/var/lib/modelstore", "--insecure"]
