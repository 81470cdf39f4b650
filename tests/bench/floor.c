/* A milter without libmilter that does no work: one epoll loop in C.  The verdict is the right one, told by the
 * names that the loads use (see floor.py).  floor SOCKET */

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOST = 65536, ROOM = 70000, EVENTS = 128 };
/* NODATA NOEOH NOBODY NOUNKNOWN, no reply to HELO, MAIL and headers: as hybridgrey negotiates. */
static const uint32_t STEPS = 0x200 | 0x40 | 0x10 | 0x100 | 0x2000 | 0x4000 | 0x80;
static const uint32_t ACTIONS = 0x1 | 0x10;

struct peer {
    size_t held;
    char verdict;  /* 'b'lock, 't'rusted, 'u'nknown */
    char attempt;
    unsigned char data[ROOM];
};

static struct peer *peers[MOST];

static void say(int fd, char letter, const void *payload, uint32_t size)
{
    unsigned char frame[128];
    uint32_t length = htonl(size + 1);

    memcpy(frame, &length, 4);
    frame[4] = letter;
    memcpy(frame + 5, payload, size);
    if (write(fd, frame, size + 5) < 0)
        perror("write");
}

static void agree(int fd, const unsigned char *offer)
{
    uint32_t answer[3];

    memcpy(answer, offer, sizeof answer);
    answer[1] &= htonl(ACTIONS);
    answer[2] &= htonl(STEPS);
    say(fd, 'O', answer, sizeof answer);
}

static void judge(int fd, const struct peer *peer)
{
    static const char listed[] = "554 5.7.1 listed", later[] = "450 4.2.0 later";

    if (peer->verdict == 'b')
        say(fd, 'y', listed, sizeof listed);
    else if (peer->verdict == 'u' && peer->attempt < '2')
        say(fd, 'y', later, sizeof later);
    else
        say(fd, 'c', "", 0);
}

/* HELO: aATTEMPT.NAME.KIND.example */
static void hello(struct peer *peer, const unsigned char *name, uint32_t size)
{
    const char *text = (const char *)name, *dot;

    if (!size || name[size - 1])
        return;
    peer->attempt = text[0] == 'a' ? text[1] : '1';
    for (dot = strchr(text, '.'); dot; dot = strchr(dot + 1, '.'))
        if (!strncmp(dot, ".block.", 7) || !strncmp(dot, ".trusted.", 9) || !strncmp(dot, ".unknown.", 9))
            peer->verdict = dot[1];
}

/* One command; 0 at the end of the connection. */
static int obey(int fd, struct peer *peer, unsigned char letter, unsigned char *payload, uint32_t size)
{
    switch (letter) {
    case 'O':
        if (size < 12)
            return 0;
        agree(fd, payload);
        return 1;
    case 'H':
        hello(peer, payload, size);
        return 1;
    case 'R':
        judge(fd, peer);
        return 1;
    case 'Q':
        return 0;
    case 'D': case 'A': case 'M': case 'L':
        return 1;
    default:
        say(fd, 'c', "", 0);
        return 1;
    }
}

static int serve(int fd, struct peer *peer)
{
    ssize_t got = read(fd, peer->data + peer->held, ROOM - peer->held);
    size_t at = 0;
    uint32_t length;

    if (got <= 0)
        return 0;
    peer->held += got;
    while (peer->held - at >= 5) {
        memcpy(&length, peer->data + at, 4);
        length = ntohl(length);
        if (!length || length > ROOM - 4)
            return 0;
        if (peer->held - at < 4 + length)
            break;
        if (!obey(fd, peer, peer->data[at + 4], peer->data + at + 5, length - 1))
            return 0;
        at += 4 + length;
    }
    peer->held -= at;
    memmove(peer->data, peer->data + at, peer->held);
    return 1;
}

int main(int count, char **words)
{
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    struct epoll_event wanted = {.events = EPOLLIN}, told[EVENTS];
    int listening = socket(AF_UNIX, SOCK_STREAM, 0), poll = epoll_create1(0), number, each, fd;

    if (count < 2)
        return 64;
    strncpy(place.sun_path, words[1], sizeof place.sun_path - 1);
    umask(0);
    if (bind(listening, (struct sockaddr *)&place, sizeof place) || listen(listening, 1024))
        return 69;
    wanted.data.fd = listening;
    epoll_ctl(poll, EPOLL_CTL_ADD, listening, &wanted);
    for (;;) {
        number = epoll_wait(poll, told, EVENTS, -1);
        for (each = 0; each < number; each++) {
            fd = told[each].data.fd;
            if (fd == listening) {
                fd = accept(listening, NULL, NULL);
                if (fd < 0 || fd >= MOST)
                    continue;
                peers[fd] = calloc(1, sizeof *peers[fd]);
                wanted.data.fd = fd;
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &wanted);
            } else if (!serve(fd, peers[fd])) {
                close(fd);
                free(peers[fd]);
                peers[fd] = NULL;
            }
        }
    }
}
