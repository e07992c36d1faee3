/* One end of many RTP streams: sends and receives 172-byte packets, and counts them.
 *
 *   rtpload PORT FLOWS      FLOWS has a line for each flow: OWN_ADDRESS [PEER_ADDRESS PEER_PORT]
 *
 * All flows share one UDP socket on PORT; IP_PKTINFO says from which own address a packet leaves, so
 * a thousand phones cost no thousand sockets. The SSRC of a packet is the number of its flow. An end
 * that has no peer for a flow learns it from the flow's latest packet: what it sees is what the
 * router in between has made of it. Nothing is allocated, and no text is written, while packets flow.
 *
 * Commands on standard input, a line each, are answered by one line of JSON, with what has happened
 * since the answer before it:
 *   open            a packet of each flow that has a peer, one after another
 *   run SECONDS RATE  packets of all flows in turn, RATE a second whatever comes back; RATE 0: as many
 *                   as can be, this end never more than WINDOW packets ahead of the other
 *   report          only the answer
 *
 * cpu_ns is the processor time of this process by the scheduler's clock. Where softirqs are not
 * accounted apart it contains the work of the kernel that runs inside its system calls, and so the
 * router's: over veth a packet is forwarded by whoever sends it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 172, BATCH = 32, WINDOW = 512, MAX_FLOWS = 1 << 17, BUFFER = 32 << 20 };
enum { SLEEP_US = 500, SILENCE_MS = 20, PACE = 4 };

struct flow {
    struct in_addr own;
    struct sockaddr_in peer;
    uint16_t sequence;
};

struct slot {
    unsigned char data[2048];
    struct iovec part;
    struct sockaddr_in peer;
    union {
        char room[CMSG_SPACE(sizeof(struct in_pktinfo))];
        struct cmsghdr align;
    } control;
};

static struct flow flows[MAX_FLOWS];
static struct slot out[BATCH], in[BATCH];
static struct mmsghdr out_heads[BATCH], in_heads[BATCH];
static uint32_t flow_count, next_flow;
static uint64_t sent, received, refused, stalls;
static int udp;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void read_flows(const char *path) {
    char line[128], own[64], peer[64];
    unsigned port;
    FILE *file = fopen(path, "r");
    if (!file)
        fail(path);
    while (fgets(line, sizeof line, file) && flow_count < MAX_FLOWS) {
        struct flow *flow = &flows[flow_count++];
        int fields = sscanf(line, "%63s %63s %u", own, peer, &port);
        flow->peer.sin_family = AF_INET;
        if ((fields != 1 && fields != 3) || !inet_aton(own, &flow->own) ||
            (fields == 3 && !inet_aton(peer, &flow->peer.sin_addr))) {
            fprintf(stderr, "rtpload: not a flow: %s", line);
            exit(1);
        }
        flow->peer.sin_port = htons(fields == 3 ? port : 0);
    }
    fclose(file);
}

static void set_up(unsigned port) {
    int size = BUFFER;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
    udp = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (udp < 0 || setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) ||
        setsockopt(udp, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) ||
        bind(udp, (struct sockaddr *)&any, sizeof any))
        fail("rtpload");
    for (int i = 0; i < BATCH; i++) {
        struct msghdr *head = &out_heads[i].msg_hdr;
        memset(out[i].data, 0xd5, SIZE);
        out[i].data[0] = 0x80; /* RTP version 2, PCMU */
        out[i].data[1] = 0;
        out[i].part = (struct iovec){out[i].data, SIZE};
        *head = (struct msghdr){&out[i].peer, sizeof out[i].peer, &out[i].part, 1,
                                out[i].control.room, sizeof out[i].control.room, 0};
        struct cmsghdr *control = CMSG_FIRSTHDR(head);
        control->cmsg_level = IPPROTO_IP;
        control->cmsg_type = IP_PKTINFO;
        control->cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
        in[i].part = (struct iovec){in[i].data, sizeof in[i].data};
        in_heads[i].msg_hdr =
            (struct msghdr){&in[i].peer, sizeof in[i].peer, &in[i].part, 1, NULL, 0, 0};
    }
}

/* Sends up to `count` packets of the next flows that have a peer; returns how many flows it took. */
static unsigned send_some(unsigned count) {
    unsigned ready = 0, taken = 0;
    for (; taken < count && taken < BATCH; taken++) {
        uint32_t number = next_flow;
        struct flow *flow = &flows[number];
        next_flow = number + 1 == flow_count ? 0 : number + 1;
        if (!flow->peer.sin_port)
            continue;
        struct slot *slot = &out[ready];
        uint16_t sequence = htons(flow->sequence);
        uint32_t stamp = htonl(160u * flow->sequence++), source = htonl(number);
        struct in_pktinfo info = {.ipi_spec_dst = flow->own};
        memcpy(slot->data + 2, &sequence, 2);
        memcpy(slot->data + 4, &stamp, 4);
        memcpy(slot->data + 8, &source, 4);
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&out_heads[ready].msg_hdr)), &info, sizeof info);
        slot->peer = flow->peer;
        ready++;
    }
    for (unsigned done = 0; done < ready;) {
        int count = sendmmsg(udp, out_heads + done, ready - done, 0);
        if (count > 0) {
            sent += count;
            done += count;
        } else { /* such as EPERM, where the router's namespace drops it in the same call */
            refused++;
            done++;
        }
    }
    return taken;
}

static unsigned receive_some(void) {
    for (int i = 0; i < BATCH; i++)
        in_heads[i].msg_hdr.msg_namelen = sizeof in[i].peer;
    int count = recvmmsg(udp, in_heads, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++) {
        uint32_t number;
        memcpy(&number, in[i].data + 8, 4);
        number = ntohl(number);
        if (in_heads[i].msg_len != SIZE || number >= flow_count)
            continue;
        flows[number].peer = in[i].peer;
        received++;
    }
    return count > 0 ? count : 0;
}

static int wait_us(unsigned us) {
    struct pollfd ready = {.fd = udp, .events = POLLIN};
    struct timespec time = {.tv_nsec = us * 1000};
    return ppoll(&ready, 1, &time, NULL);
}

static void open_flows(void) {
    next_flow = 0;
    for (uint32_t done = 0; done < flow_count;)
        done += send_some(flow_count - done < PACE ? flow_count - done : PACE);
}

static void run(double seconds, double rate) {
    uint64_t start = now_ns(CLOCK_MONOTONIC), now = start, end = start + seconds * 1e9;
    uint64_t before = sent, given_up = 0, heard = received;
    for (; now < end; now = now_ns(CLOCK_MONOTONIC)) {
        uint64_t mine = sent - before, others = received - heard + given_up;
        uint64_t goal = rate > 0 ? (now - start) * rate / 1e9 : others + WINDOW;
        uint64_t due = goal > mine ? goal - mine : 0;
        int is_full = due >= BATCH;
        if (is_full || (rate > 0 && due))
            send_some(due);
        if (receive_some() || is_full)
            continue;
        if (rate > 0) {
            struct timespec rest = {.tv_nsec = SLEEP_US * 1000};
            nanosleep(&rest, NULL);
        } else if (wait_us(SILENCE_MS * 1000) == 0) {
            given_up += mine - others; /* what was lost must not stop us for ever */
            stalls++;
        }
    }
}

static void answer(double seconds) {
    static uint64_t cpu;
    uint64_t spent = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    printf("{\"sent\": %lu, \"received\": %lu, \"refused\": %lu, \"stalls\": %lu,"
           " \"cpu_ns\": %lu, \"seconds\": %.6f}\n",
           sent, received, refused, stalls, spent - cpu, seconds);
    fflush(stdout);
    cpu = spent;
    sent = received = refused = stalls = 0;
}

int main(int count, char **arguments) {
    char line[128];
    size_t length = 0;
    double seconds, rate;
    struct pollfd ready[2] = {{.fd = 0, .events = POLLIN}, {.events = POLLIN}};
    if (count != 3) {
        fprintf(stderr, "usage: rtpload PORT FLOWS\n");
        return 2;
    }
    read_flows(arguments[2]);
    set_up(atoi(arguments[1]));
    ready[1].fd = udp;
    for (answer(0);;) {
        poll(ready, 2, -1);
        while (receive_some()) /* also what is still on its way when a run ends */
            ;
        if (!ready[0].revents)
            continue;
        ssize_t got = read(0, line + length, sizeof line - 1 - length);
        if (got <= 0)
            return 0;
        length += got;
        if (line[length - 1] != '\n' && length < sizeof line - 1)
            continue;
        line[length] = 0;
        length = 0;
        uint64_t start = now_ns(CLOCK_MONOTONIC);
        if (!strcmp(line, "open\n"))
            open_flows();
        else if (sscanf(line, "run %lf %lf", &seconds, &rate) == 2)
            run(seconds, rate);
        answer((now_ns(CLOCK_MONOTONIC) - start) / 1e9);
    }
}
