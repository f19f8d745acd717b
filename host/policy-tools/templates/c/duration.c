// A duration policy: the whole amount at the quoted price, between a minimum and a maximum.
#include "settings.h"

// Ten years, the most that the contract allows.
#define LONGEST 315360000

enum { MINIMUM, MAXIMUM, REFUND_PERCENT, COUNT };

// The values are the defaults until `configure`, which the host calls first in every instance, has read others.
static setting settings[COUNT] = {
    [MINIMUM] = NUMBER("minimum_seconds", 60, 1, LONGEST, "A payment that buys less is refused."),
    [MAXIMUM] = NUMBER("maximum_seconds", 2592000, 1, LONGEST,
                       "A pod never has more than this before it; a payment that would exceed it is refused."),
    [REFUND_PERCENT] = NUMBER("refund_percent", 100, 0, 100,
                              "The part of the price of unused time that is refunded when a customer stops a pod."),
};

// What the declarations do not say.
static void check(problem_list *problems) {
    if (settings[MINIMUM].number > settings[MAXIMUM].number) {
        note(problems, "minimum_seconds", "must not be more than maximum_seconds");
    }
}

void exports_paygress_policy_settings_schema(string *schema) { *schema = write_schema("A minimum and a maximum", settings, COUNT); }

bool exports_paygress_policy_settings_configure(string *json, problem_list *problems) {
    return read_settings(*json, settings, COUNT, check, problems);
}

static bool refuse(paygress_policy_types_refusal_t *refusal, string code, string message) {
    *refusal = (paygress_policy_types_refusal_t){code, message};
    return false;
}

// "the token buys 5 s; the least is 60 s"
static string seconds_and(const char *before, uint64_t seconds, const char *between, uint64_t other) {
    writer message = write_text(500);
    put(&message, before);
    put_number(&message, (int64_t)seconds);
    put(&message, between);
    put_number(&message, (int64_t)other);
    put(&message, " s");
    return message.text;
}

// The whole seconds that an amount buys at a price that is not zero, but never more than this.
static const uint64_t FOREVER = 1000000000000;

static uint64_t buys(paygress_policy_types_price_t price, uint64_t sat) {
    // There are 2.1e15 sat. A thousand times that is within 64 bits, but not times the seconds: hence division by hand, a
    // binary digit of the seconds at a time.
    uint64_t msat = (sat < 2100000000000000 ? sat : 2100000000000000) * 1000, seconds = 0, rest = 0;
    for (int bit = 31; bit >= 0; bit--) {
        rest *= 2;
        seconds *= 2;
        if (price.seconds >> bit & 1) {
            seconds += msat / price.msat;
            rest += msat % price.msat;
        }
        seconds += rest / price.msat;
        rest %= price.msat;
        if (seconds > FOREVER) return FOREVER;
    }
    return seconds;
}

// True: it is granted. False: it is refused.
bool exports_paygress_policy_duration_grant(paygress_policy_types_order_t *order, paygress_policy_types_quote_t *quote,
                                            paygress_policy_types_payment_t *payment, paygress_policy_types_context_t *context,
                                            paygress_policy_types_grant_t *granted, paygress_policy_types_refusal_t *refusal) {
    (void)context;
    uint64_t minimum = (uint64_t)settings[MINIMUM].number, maximum = (uint64_t)settings[MAXIMUM].number, remaining = 0;
    if (order->purpose.tag == PAYGRESS_POLICY_TYPES_PURPOSE_EXTEND) {
        const paygress_policy_types_lease_t *lease = &order->purpose.val.extend;
        remaining = lease->remaining_seconds;
        if (remaining == 0) return refuse(refusal, TEXT("lease_expired"), TEXT("this pod has ended; order a new one"));
        if (!lease->owned_by_customer) return refuse(refusal, TEXT("not_owner"), TEXT("only the customer who bought this pod may extend it"));
    }
    uint64_t room = remaining < maximum ? maximum - remaining : 0;
    uint64_t wanted = order->wanted_seconds.is_some ? order->wanted_seconds.val : 0, seconds;
    if (wanted > FOREVER) wanted = FOREVER;
    uint64_t least = wanted > minimum ? wanted : minimum;
    if (quote->price.msat > 0) {
        seconds = buys(quote->price, payment->net_sat);
    } else {
        // Free time lasts as long as requested, or an hour.
        seconds = order->wanted_seconds.is_some || least > 3600 ? least : 3600;
        if (seconds > room) seconds = room;
    }
    if (seconds < least) {
        return refuse(refusal, TEXT("insufficient_payment"), seconds_and("the token buys ", seconds, " s; the least is ", least));
    }
    if (seconds > room) {
        return refuse(refusal, TEXT("invalid_request"), seconds_and("the token buys ", seconds, " s, and this pod may have no more than ", room));
    }
    *granted = (paygress_policy_types_grant_t){.seconds = seconds};
    return true;
}

void exports_paygress_policy_duration_refund(paygress_policy_types_order_t *order, paygress_policy_types_quote_t *quote,
                                             paygress_policy_types_payment_t *payment, paygress_policy_types_grant_t *granted,
                                             paygress_policy_types_context_t *context,
                                             exports_paygress_policy_duration_refund_terms_t *terms) {
    (void)order, (void)quote, (void)payment, (void)granted, (void)context;
    // Used minutes are charged whole.
    *terms = (exports_paygress_policy_duration_refund_terms_t){.step_seconds = 60, .percent = (uint8_t)settings[REFUND_PERCENT].number};
}
