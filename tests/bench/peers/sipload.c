/*
 * The load: whole SIP calls over UDP through whatever stands between two network namespaces.
 *
 * One process plays both ends, by one socket in each namespace: a crowd of phones that call out, and
 * the server that answers. A call is six messages: INVITE, 180, 200, ACK, BYE, 200. Calls begin at
 * the times that the rate asks for, whatever became of those before (open loop), and nothing is sent
 * twice: what is not answered within T1 (RFC 3261 section 17.1.1.1) has failed. Each message is
 * timed on its way, from the moment before it is sent until it is read.
 *
 * It sleeps for half a millisecond at a time, so that what it costs by itself is about the same for a
 * message at any rate. With --stamps it does not: both ends act at once, and a message is timed until
 * the kernel has it at the other end.
 *
 * It prints "phase N" when a phase begins, "end" when the last one is over, and a JSON object.
 */
#define _GNU_SOURCE
#include "sipwords.h"

/* -- the calls -------------------------------------------------------------------------------- */

static void send_as_phone(struct call *call, int kind) {
    union {
        char space[CMSG_SPACE(sizeof(struct in_pktinfo))];
        struct cmsghdr head;
    } control = {.head = {.cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo)),
                          .cmsg_level = IPPROTO_IP,
                          .cmsg_type = IP_PKTINFO}};
    struct in_pktinfo info = {.ipi_spec_dst = raw_addresses[call->phone]};
    memcpy(CMSG_DATA(&control.head), &info, sizeof info);
    struct iovec data = {text, end - text};
    struct msghdr message = {&edge, sizeof edge, &data, 1, &control, sizeof control.space, 0};
    call->sent[kind] = now();
    sendmsg(lan, &message, 0);
}

static void send_invite(struct call *call) {
    put_request(call, "INVITE", 20);
    put("Contact: <sip:phone");
    put_number(call->phone);
    put("@");
    put(addresses[call->phone]);
    put(":5060>;+sip.instance=\"<urn:uuid:4f9b3a1c-0d52-00c5-9b7e-6c1d2e3f4a5b>\"\r\n"
        "Supported: replaces, outbound, gruu\r\n"
        "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, MESSAGE, SUBSCRIBE, INFO, UPDATE\r\n"
        "User-Agent: Linphone/5.2.0 (belle-sip/5.2.0)\r\n");
    put_body(addresses[call->phone], call->rtp);
    send_as_phone(call, INVITE);
}

static void send_in_call(struct call *call, int kind) {
    put_request(call, kind == ACK ? "ACK" : "BYE", kind == ACK ? 20 : 21);
    put("User-Agent: Linphone/5.2.0 (belle-sip/5.2.0)\r\nContent-Length: 0\r\n\r\n");
    send_as_phone(call, kind);
}

static void append(struct queue *queue, uint32_t number) {
    queue->numbers[queue->end++ % CALLS] = number;
}

static struct call *find(uint32_t number) {
    struct call *call = &calls[number % CALLS];
    return number < next_number && call->number == number && !call->is_over ? call : NULL;
}

static void start_call(void) {
    struct call *call = &calls[next_number % CALLS];
    unsigned phone = next_number % options.phones;
    unsigned port = phone * 8 + calls_of[phone]++ % options.cycle * options.streams;
    *call = (struct call){.number = next_number++, .phone = phone, .phase = current,
                          .rtp = FIRST_RTP + port % RTP_PORTS * 2};
    phases[current].started++;
    under_way++;
    send_invite(call);
}

static void end_call(struct call *call, uint64_t *count) {
    ++*count;
    under_way--;
    call->is_over = true;
}

static bool is_late(const struct call *call) {
    const nanoseconds *sent = call->sent, most = options.t1 * SECOND;
    return sent[RINGING] - sent[INVITE] > most || sent[ACK] - sent[ANSWER] > most ||
           (!options.is_kept_open && now() - sent[BYE] > most);
}

static void finish(struct call *call) {
    struct phase *phase = &phases[call->phase];
    end_call(call, is_late(call) ? &phase->late : &phase->good);
}

static void note_arrival(const struct call *call, int kind, nanoseconds arrived) {
    phases[current].messages++;
    phases[current].latencies[bucket_of(arrived - call->sent[kind])]++;
}

/* -- what arrives ----------------------------------------------------------------------------- */

static struct call *call_of(const char *message, size_t length) {
    const char *id = value_at(message, length, "\r\nCall-ID: ");
    char digits[9] = {0};
    if (!id || id + 16 > message + length) return NULL;
    if (strtoul(memcpy(digits, id, 8), NULL, 16) != salt) return NULL;
    return find(strtoul(memcpy(digits, id + 8, 8), NULL, 16));
}

/* Sends an answer with the fields of a request that an answer repeats. */
static void answer(struct call *call, const char *request, size_t length, int kind,
                   const struct sockaddr_in *to) {
    static const char *repeated[] = {"Via:", "From:", "To:", "Call-ID:", "CSeq:", "Record-Route:"};
    const char *line = memchr(request, '\n', length), *stop = request + length;
    end = text;
    put(kind == RINGING ? "SIP/2.0 180 Ringing\r\n" : "SIP/2.0 200 OK\r\n");
    while (line && ++line < stop && *line != '\r') {
        const char *next = memchr(line, '\n', stop - line);
        for (unsigned i = 0; next && i < sizeof repeated / sizeof *repeated; i++)
            if (!strncmp(line, repeated[i], strlen(repeated[i]))) {
                bool is_to = *line == 'T' && kind != BYE_ANSWER;
                put_bytes(line, next + 1 - line - 2 * is_to);
                if (is_to) {
                    put(";tag=");
                    put_token(call->number, 1);
                    put("\r\n");
                }
                break;
            }
        line = next;
    }
    put("Server: sipload\r\nAllow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE\r\n");
    if (kind != BYE_ANSWER) {
        put("Contact: <sip:server@");
        put(options.server);
        put(":5060>\r\n");
    }
    if (kind == ANSWER)
        put_body(options.server, call->rtp);
    else
        put("Content-Length: 0\r\n\r\n");
    call->sent[kind] = now();
    sendto(wan, text, end - text, 0, (const struct sockaddr *)to, sizeof *to);
}

/* The INVITEs that ring, as they arrived: their answer is written when they are picked up. */
static struct {
    struct sockaddr_in from;
    uint16_t length;
    char text[1400];
} invites[CALLS / 8];

static void read_request(char *message, size_t length, const struct sockaddr_in *from,
                         nanoseconds arrived) {
    struct call *call = call_of(message, length);
    if (!call) return;
    struct phase *phase = &phases[call->phase];
    if (*message == 'I') {
        note_arrival(call, INVITE, arrived);
        if (!is_promise_kept(message, length) || length > sizeof invites->text) {
            end_call(call, &phase->wrong);
            return;
        }
        unsigned place = call->number % (sizeof invites / sizeof *invites);
        invites[place].from = *from;
        invites[place].length = length;
        memcpy(invites[place].text, message, length);
        answer(call, message, length, RINGING, from);
        append(&ringing, call->number);
    } else if (*message == 'A') {
        note_arrival(call, ACK, arrived);
        call->is_acknowledged = true;
        if (options.is_kept_open) finish(call);
    } else if (*message == 'B') {
        note_arrival(call, BYE, arrived);
        answer(call, message, length, BYE_ANSWER, from);
    }
}

static void read_answer(char *message, size_t length, struct in_addr at, nanoseconds arrived) {
    struct call *call = call_of(message, length);
    if (!call || length < 12) return;
    struct phase *phase = &phases[call->phase];
    if (at.s_addr != raw_addresses[call->phone].s_addr)
        end_call(call, &phase->wrong);
    else if (message[8] == '1')
        note_arrival(call, RINGING, arrived);
    else if (message[8] != '2')
        end_call(call, &phase->refused);
    else if (!call->sent[ACK]) {
        note_arrival(call, ANSWER, arrived);
        send_in_call(call, ACK);
        if (!options.is_kept_open) append(&talking, call->number);
    } else if (call->sent[BYE]) {
        note_arrival(call, BYE_ANSWER, arrived);
        if (call->is_acknowledged)
            finish(call);
        else
            end_call(call, &phase->wrong);
    }
}

/* Reads what has come; returns whether anything has. */
static bool receive(int descriptor) {
    static char buffers[BATCH][SIZE], controls[BATCH][128];
    static struct sockaddr_in senders[BATCH];
    static struct iovec data[BATCH];
    static struct mmsghdr heads[BATCH];
    for (int i = 0; i < BATCH; i++) {
        data[i] = (struct iovec){buffers[i], SIZE};
        heads[i].msg_hdr = (struct msghdr){&senders[i], sizeof senders[i], &data[i], 1,
                                           controls[i], sizeof controls[i], 0};
    }
    int count = recvmmsg(descriptor, heads, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++) {
        nanoseconds arrived = now();
        struct in_addr at = {0};
        for (struct cmsghdr *each = CMSG_FIRSTHDR(&heads[i].msg_hdr); each;
             each = CMSG_NXTHDR(&heads[i].msg_hdr, each))
            if (each->cmsg_level == IPPROTO_IP && each->cmsg_type == IP_PKTINFO)
                at = ((struct in_pktinfo *)CMSG_DATA(each))->ipi_addr;
            else if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == SCM_TIMESTAMPNS) {
                struct timespec *stamp = (struct timespec *)CMSG_DATA(each);
                arrived = stamp->tv_sec * SECOND + stamp->tv_nsec;
            }
        if (descriptor == wan)
            read_request(buffers[i], heads[i].msg_len, &senders[i], arrived);
        else
            read_answer(buffers[i], heads[i].msg_len, at, arrived);
    }
    return count > 0;
}

/* -- time ------------------------------------------------------------------------------------- */

/* Returns when the first call of a queue is due, after having dropped those that are over. */
static nanoseconds due(struct queue *queue, int since, double wait) {
    for (; queue->first != queue->end; queue->first++) {
        struct call *call = find(queue->numbers[queue->first % CALLS]);
        if (call) return call->sent[since] + (nanoseconds)(wait * SECOND);
    }
    return INT64_MAX;
}

static struct call *take(struct queue *queue) {
    return find(queue->numbers[queue->first++ % CALLS]);
}

static void pick_up(struct call *call) {
    unsigned place = call->number % (sizeof invites / sizeof *invites);
    answer(call, invites[place].text, invites[place].length, ANSWER, &invites[place].from);
}

static void sleep_until(nanoseconds moment, nanoseconds until, bool is_woken) {
    if (until <= moment) return;
    struct timespec wait = {(until - moment) / SECOND, (until - moment) % SECOND};
    struct pollfd descriptors[] = {{lan, POLLIN, 0}, {wan, POLLIN, 0}};
    ppoll(descriptors, is_woken ? 2 : 0, &wait, NULL);
}

/* Does what is due and reads what has come; sleeps until `until` where there is neither. */
static void turn(nanoseconds until) {
    nanoseconds moment = now(), next;
    for (int i = 0; i < BURST && due(&ringing, RINGING, options.ring) <= moment; i++)
        pick_up(take(&ringing));
    for (int i = 0; i < BURST && due(&talking, ACK, options.hold) <= moment; i++)
        send_in_call(take(&talking), BYE);
    bool is_busy = receive(wan);
    is_busy |= receive(lan);
    if (is_busy && options.has_stamps) return;
    if (!options.has_stamps) sleep_until(now(), moment + PAUSE, false);
    if (is_busy) return;
    if ((next = due(&ringing, RINGING, options.ring)) < until) until = next;
    if ((next = due(&talking, ACK, options.hold)) < until) until = next;
    sleep_until(now(), until, true);
}

static void play(void) {
    nanoseconds start = now();
    for (current = 0; current < phase_count; current++) {
        struct phase *phase = &phases[current];
        nanoseconds stop = start + (nanoseconds)(phase->seconds * SECOND);
        printf("phase %u\n", current);
        fflush(stdout);
        for (nanoseconds moment; (moment = now()) < stop;) {
            nanoseconds next = INT64_MAX;
            for (int i = 0; i < BURST && phase->rate; i++) {
                next = start + (nanoseconds)(phase->started * SECOND / phase->rate);
                if (next > moment) break;
                if (moment - next > phase->behind) phase->behind = moment - next;
                start_call();
            }
            turn(next < stop ? next : stop);
        }
        start = stop;
    }
    current--;
    nanoseconds stop = now() + (nanoseconds)((options.ring + options.hold + 2 * options.t1) * SECOND);
    while (under_way && now() < stop) turn(stop);
    puts("end");
}

static void report(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"user\": %ld.%06ld, \"system\": %ld.%06ld, \"phases\": [", usage.ru_utime.tv_sec,
           usage.ru_utime.tv_usec, usage.ru_stime.tv_sec, usage.ru_stime.tv_usec);
    for (unsigned i = 0; i < phase_count; i++) {
        struct phase *phase = &phases[i];
        printf("%s{\"rate\": %g, \"seconds\": %g, \"started\": %lu, \"good\": %lu, \"late\": %lu, "
               "\"wrong\": %lu, \"refused\": %lu, \"messages\": %lu, \"behind\": %g, "
               "\"latencies\": [",
               i ? ", " : "", phase->rate, phase->seconds, phase->started, phase->good, phase->late,
               phase->wrong, phase->refused, phase->messages, (double)phase->behind / SECOND);
        const char *separator = "";
        for (unsigned bucket = 0; bucket < BUCKETS; bucket++)
            if (phase->latencies[bucket]) {
                printf("%s[%lu, %u]", separator, value_of(bucket), phase->latencies[bucket]);
                separator = ", ";
            }
        printf("]}");
    }
    printf("]}\n");
}

/* -- start ------------------------------------------------------------------------------------ */

static int open_socket(const char *namespace, const char *address) {
    char path[256];
    snprintf(path, sizeof path, "/run/netns/%s", namespace);
    int handle = open(path, O_RDONLY | O_CLOEXEC);
    if (handle < 0 || setns(handle, CLONE_NEWNET)) fail(path);
    close(handle);
    int made = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), size = BUFFER, yes = 1;
    struct sockaddr_in own = {AF_INET, htons(SIP_PORT), {inet_addr(address)}, {0}};
    setsockopt(made, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(made, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    setsockopt(made, IPPROTO_IP, IP_PKTINFO, &yes, sizeof yes);
    if (options.has_stamps) setsockopt(made, SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof yes);
    if (bind(made, (struct sockaddr *)&own, sizeof own)) fail(address);
    return made;
}

static void make_phones(void) {
    addresses = calloc(options.phones, sizeof *addresses);
    raw_addresses = calloc(options.phones, sizeof *raw_addresses);
    calls_of = calloc(options.phones, sizeof *calls_of);
    for (unsigned i = 0; i < options.phones; i++) {
        snprintf(addresses[i], sizeof *addresses, PRIVATE "%u.%u", i / 250, i % 250 + 1);
        raw_addresses[i].s_addr = inet_addr(addresses[i]);
    }
}

static void read_phases(char *list) {
    for (char *each = strtok(list, ","); each && phase_count < PHASES; each = strtok(NULL, ",")) {
        struct phase *phase = &phases[phase_count++];
        if (sscanf(each, "%lf:%lf", &phase->rate, &phase->seconds) != 2) fail("--phases");
    }
}

int main(int count, char **arguments) {
    enum { KEEP_OPEN = 1, STAMPS };
    static const struct option known[] = {
        {"lan", 1, 0, 'l'},     {"wan", 1, 0, 'w'},       {"edge", 1, 0, 'e'},
        {"server", 1, 0, 's'},  {"route", 1, 0, 'o'},     {"promises", 1, 0, 'p'},
        {"phones", 1, 0, 'n'},  {"cycle", 1, 0, 'c'},     {"streams", 1, 0, 'm'},
        {"ring", 1, 0, 'r'},    {"hold", 1, 0, 'h'},      {"phases", 1, 0, 'x'},  {"t1", 1, 0, 't'},
        {"keep-open", 0, 0, KEEP_OPEN}, {"stamps", 0, 0, STAMPS}, {0}};
    for (int each; (each = getopt_long(count, arguments, "", known, NULL)) != -1;) switch (each) {
            case 'l': options.lan = optarg; break;
            case 'w': options.wan = optarg; break;
            case 'e': options.edge = optarg; break;
            case 's': options.server = optarg; break;
            case 'o': options.route = optarg; break;
            case 'p': options.promises = optarg; break;
            case 'n': options.phones = atoi(optarg); break;
            case 'c': options.cycle = atoi(optarg); break;
            case 'm': options.streams = atoi(optarg); break;
            case 'r': options.ring = atof(optarg); break;
            case 'h': options.hold = atof(optarg); break;
            case 't': options.t1 = atof(optarg); break;
            case 'x': read_phases(optarg); break;
            case KEEP_OPEN: options.is_kept_open = true; break;
            case STAMPS: options.has_stamps = true; break;
            default: return 2;
        }
    prctl(PR_SET_PDEATHSIG, 9);
    prctl(PR_SET_TIMERSLACK, 1);
    salt = (uint32_t)now() ^ (uint32_t)getpid() << 16;
    make_phones();
    edge = (struct sockaddr_in){AF_INET, htons(SIP_PORT), {inet_addr(options.edge)}, {0}};
    lan = open_socket(options.lan, "0.0.0.0");
    wan = open_socket(options.wan, options.server);
    play();
    report();
    return 0;
}
