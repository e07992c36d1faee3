/* What the load is made of: calls, the phases in which they begin, and the time that passes. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIP_PORT = 5060, BATCH = 64, SIZE = 4096, BUFFER = 16 << 20, PHASES = 64 };
enum { CALLS = 1 << 18, BURST = 32, FIRST_RTP = 16384, RTP_PORTS = 8192 };
enum { STEPS = 32, BUCKETS = 64 * STEPS };
enum { INVITE, RINGING, ANSWER, ACK, BYE, BYE_ANSWER, KINDS };
#define SECOND 1000000000LL
#define PAUSE (SECOND / 2000)
#define PRIVATE "10.1."

typedef int64_t nanoseconds;

struct call {
    uint32_t number;
    uint16_t phone, rtp;
    uint8_t phase;
    bool is_acknowledged, is_over;
    nanoseconds sent[KINDS];
};

/* Calls that wait for one and the same time, so that they are due in the order in which they came. */
struct queue {
    uint32_t numbers[CALLS];
    uint32_t first, end;
};

struct phase {
    double rate, seconds;
    uint64_t started, good, late, wrong, refused, messages;
    nanoseconds behind;
    uint32_t latencies[BUCKETS];
};

static struct {
    const char *lan, *wan, *edge, *server, *route, *promises;
    unsigned phones, cycle, streams;
    double ring, hold, t1;
    bool is_kept_open, has_stamps;
} options = {.route = "", .promises = "", .phones = 1000, .cycle = 16, .streams = 1, .ring = 0.02,
             .hold = 0.1, .t1 = 0.5};

static struct phase phases[PHASES];
static unsigned phase_count, current;
static struct call calls[CALLS];
static struct queue ringing, talking;
static uint32_t salt, next_number, under_way, *calls_of;
static char (*addresses)[24];
static struct in_addr *raw_addresses;
static struct sockaddr_in edge;
static int lan, wan;
static char text[SIZE], *end;

static void fail(const char *what) {
    fprintf(stderr, "sipload: %s: %s\n", what, strerror(errno));
    exit(1);
}

static nanoseconds now(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static unsigned bucket_of(nanoseconds latency) {
    uint64_t value = latency < STEPS ? STEPS : latency;
    unsigned power = 63 - __builtin_clzll(value);
    return power * STEPS + (value >> (power - 5)) % STEPS;
}

static uint64_t value_of(unsigned bucket) {
    return (uint64_t)(STEPS + bucket % STEPS) << (bucket / STEPS - 5);
}
