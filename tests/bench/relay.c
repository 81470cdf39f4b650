/* relay: a delay in front of one DNS server on UDP, and a count of what is asked.
 *
 *   relay HOST PORT SERVER-HOST SERVER-PORT
 *
 * In C because a relay in Python would cost more than the filters that are measured behind it. A query goes on
 * at once under an id of ours; its answer is held until the delay since the query is over. The delay is the same
 * for all, so answers leave in the order in which they arrived, and a ring is enough. A line on standard input
 * is the delay from now on, in ms (at first 0); it is answered with one on standard output: queries, answers,
 * and packets lost for want of room since the start. The end of standard input ends the relay. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { IDS = 65536, RING = 16384, LARGEST = 1400, BUFFER = 4 << 20 };

struct asked { struct sockaddr_in client; uint16_t id; char open; int64_t due; };
struct held { int64_t due; struct sockaddr_in client; ssize_t size; unsigned char data[LARGEST]; };

static struct asked table[IDS];
static struct held ring[RING];
static unsigned head, tail, next_id;
static unsigned long queries, answers, lost;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct sockaddr_in where(const char *host, const char *port) {
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1) { fprintf(stderr, "relay: bad address %s\n", host); exit(2); }
    return a;
}

static int datagrams(void) {
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), size = BUFFER;
    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    return s;
}

static void take_queries(int in, int out, int64_t delay) {
    unsigned char p[LARGEST];
    struct sockaddr_in client;
    for (;;) {
        socklen_t length = sizeof client;
        ssize_t n = recvfrom(in, p, sizeof p, 0, (struct sockaddr *)&client, &length);
        if (n < 0) return;
        if (n < 12) continue;
        queries++;
        struct asked *a = &table[next_id = (next_id + 1) % IDS];
        if (a->open) lost++;
        *a = (struct asked){ client, p[0] << 8 | p[1], 1, now() + delay };
        p[0] = next_id >> 8, p[1] = next_id & 255;
        if (send(out, p, n, 0) < 0) lost++;
    }
}

static void take_answers(int out) {
    for (;;) {
        struct held *h = &ring[tail % RING];
        if (tail - head == RING) { lost++; return; }
        h->size = recv(out, h->data, LARGEST, 0);
        if (h->size < 0) return;
        if (h->size < 12) continue;
        struct asked *a = &table[h->data[0] << 8 | h->data[1]];
        if (!a->open) continue;
        a->open = 0;
        h->due = a->due, h->client = a->client;
        h->data[0] = a->id >> 8, h->data[1] = a->id & 255;
        tail++;
    }
}

static void give_answers(int in) {
    for (int64_t t = now(); head != tail && ring[head % RING].due <= t; head++) {
        struct held *h = &ring[head % RING];
        if (sendto(in, h->data, h->size, 0, (struct sockaddr *)&h->client, sizeof h->client) < 0) lost++;
        else answers++;
    }
}

int main(int count, char **word) {
    if (count != 5) { fprintf(stderr, "usage: relay HOST PORT SERVER-HOST SERVER-PORT\n"); return 2; }
    struct sockaddr_in here = where(word[1], word[2]), server = where(word[3], word[4]);
    int64_t delay = 0;
    int in = datagrams(), out = datagrams();
    if (bind(in, (struct sockaddr *)&here, sizeof here) || connect(out, (struct sockaddr *)&server, sizeof server)) {
        perror("relay");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    struct pollfd p[] = { { in, POLLIN, 0 }, { out, POLLIN, 0 }, { 0, POLLIN, 0 } };
    for (;;) {
        struct timespec pause, *limit = NULL;
        if (head != tail) {
            int64_t left = ring[head % RING].due - now();
            left = left < 0 ? 0 : left;
            pause = (struct timespec){ left / 1000000000, left % 1000000000 };
            limit = &pause;
        }
        ppoll(p, 3, limit, NULL);
        if (p[2].revents) {
            char line[64] = "";
            if (read(0, line, sizeof line - 1) <= 0) return 0;
            delay = (int64_t)(atof(line) * 1e6);
            printf("%lu %lu %lu\n", queries, answers, lost);
            fflush(stdout);
        }
        take_queries(in, out, delay);
        take_answers(out);
        give_answers(in);
    }
}
