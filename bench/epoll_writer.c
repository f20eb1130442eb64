/* The least a server can do: epoll, and one write() per record.

   Writes records of SIZE bytes to STREAMS connections, in ENGINES groups of staggered
   phase, each group once every STEP_US. A tick is a millisecond, as the mock server's.
   Prints its port, then for each line read from stdin "cpu seconds, records written".

   usage: epoll_writer STREAMS ENGINES STEP_US SIZE */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int listen_on_loopback(void) {
    struct sockaddr_in where = {.sin_family = AF_INET};
    socklen_t size = sizeof where;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || bind(listener, (struct sockaddr *)&where, size) ||
        listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&where, &size)) {
        perror("listen");
        exit(1);
    }
    printf("%d\n", ntohs(where.sin_port));
    fflush(stdout);
    return listener;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int streams = atoi(argv[1]), engines = atoi(argv[2]);
    double step = 1e-6 * atof(argv[3]);
    size_t size = (size_t)atol(argv[4]);
    int *socks = calloc((size_t)streams, sizeof *socks);
    double *due = calloc((size_t)engines, sizeof *due);
    char *record = malloc(size), line[64];
    memset(record, 'x', size);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);

    int listener = listen_on_loopback(), poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = 0}, ready[64];
    for (int i = 0; i < streams; i++) {
        socks[i] = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        event.data.fd = socks[i];
        epoll_ctl(poll, EPOLL_CTL_ADD, socks[i], &event);
    }
    event.data.fd = 0;
    epoll_ctl(poll, EPOLL_CTL_ADD, 0, &event);
    double start = now(CLOCK_MONOTONIC);
    for (int e = 0; e < engines; e++) due[e] = start + step * (1 + e) / engines;

    long written = 0;
    for (;;) {
        int n = epoll_wait(poll, ready, 64, 1);
        for (int i = 0; i < n; i++) {
            char junk[4096];
            if (ready[i].data.fd != 0) { /* the request */
                if (read(ready[i].data.fd, junk, sizeof junk) <= 0) return 0;
                continue;
            }
            if (read(0, line, sizeof line) <= 0) return 0;
            printf("%.6f %ld\n", now(CLOCK_PROCESS_CPUTIME_ID), written);
            fflush(stdout);
        }
        double t = now(CLOCK_MONOTONIC);
        for (int e = 0; e < engines; e++) {
            if (due[e] > t) continue;
            for (int i = e; i < streams; i += engines)
                if (write(socks[i], record, size) == (ssize_t)size) written++;
            due[e] += step;
        }
    }
}
