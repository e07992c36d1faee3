/* The words of a call: what a phone and a server write, and what is looked for in it. */
#include "sipload.h"

static void put_bytes(const char *bytes, size_t length) {
    memcpy(end, bytes, length);
    end += length;
}

static void put(const char *words) { put_bytes(words, strlen(words)); }

static void put_number(unsigned value) {
    char digits[10], *first = digits + sizeof digits;
    do *--first = '0' + value % 10;
    while (value /= 10);
    put_bytes(first, digits + sizeof digits - first);
}

static void put_hex(uint32_t value) {
    for (int shift = 28; shift >= 0; shift -= 4) *end++ = "0123456789abcdef"[value >> shift & 15];
}

/* Something that differs for each call and use, and looks like chance. */
static void put_token(uint32_t number, uint32_t use) {
    put_hex((number ^ salt) * 2654435761u + use * 40503u);
}

static void put_call_id(uint32_t number) {
    put_hex(salt);
    put_hex(number);
}

static void put_body(const char *address, unsigned port) {
    char sdp[1024];
    char *kept = end;
    end = sdp;
    put("v=0\r\no=");
    put(address == options.server ? "server 3902745301 3902745301" : "phone 3902745222 1");
    put(" IN IP4 ");
    put(address);
    put("\r\ns=Talk\r\nc=IN IP4 ");
    put(address);
    put("\r\nt=0 0\r\nm=audio ");
    put_number(port);
    put(" RTP/AVP 96 0 8 101\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\n"
        "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n");
    if (options.streams > 1) {
        put("m=video ");
        put_number(port + 2);
        put(" RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\na=sendrecv\r\n");
    }
    size_t length = end - sdp;
    end = kept;
    put("Content-Type: application/sdp\r\nContent-Length: ");
    put_number(length);
    put("\r\n\r\n");
    put_bytes(sdp, length);
}

/* Writes a phone's request as far as the fields that differ between methods. */
static void put_request(const struct call *call, const char *method, unsigned sequence) {
    const char *address = addresses[call->phone];
    bool is_first = sequence == 20 && *method == 'I';
    end = text;
    put(method);
    put(is_first ? " sip:2000@" : " sip:server@");
    put(options.server);
    put(is_first ? " SIP/2.0\r\nVia: SIP/2.0/UDP " : ":5060 SIP/2.0\r\nVia: SIP/2.0/UDP ");
    put(address);
    put(":5060;branch=z9hG4bK.");
    put_token(call->number, *method);
    put(";rport\r\nMax-Forwards: 70\r\nFrom: \"Phone ");
    put_number(call->phone);
    put("\" <sip:phone");
    put_number(call->phone);
    put("@sip.example.com>;tag=");
    put_token(call->number, 0);
    put("\r\nTo: <sip:2000@sip.example.com>");
    if (!is_first) {
        put(";tag=");
        put_token(call->number, 1);
    }
    put("\r\nCall-ID: ");
    put_call_id(call->number);
    put("\r\nCSeq: ");
    put_number(sequence);
    put(" ");
    put(method);
    put("\r\n");
    if (!is_first && *options.route) {
        put("Route: ");
        put(options.route);
        put("\r\n");
    }
}

static const char *value_at(const char *message, size_t length, const char *name) {
    const char *found = memmem(message, length, name, strlen(name));
    return found ? found + strlen(name) : NULL;
}

/* Whether the line of this name is there, and names no phone by its own address. */
static bool is_public(const char *message, size_t length, const char *name) {
    const char *value = value_at(message, length, name);
    if (!value) return false;
    const char *stop = memchr(value, '\r', message + length - value);
    return stop && !memmem(value, stop - value, PRIVATE, strlen(PRIVATE));
}

static bool is_promise_kept(const char *message, size_t length) {
    for (const char *each = options.promises; *each; each++)
        if (!is_public(message, length, *each == 'v'   ? "\r\nVia: "
                                        : *each == 'c' ? "\r\nContact: "
                                                       : "\r\nc=IN IP4 "))
            return false;
    return true;
}
