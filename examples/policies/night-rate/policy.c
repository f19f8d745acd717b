// A pricing policy with one tier, cheaper at night and on weekends. The time of the order counts: what is bought at night has
// the night price for its whole duration.
#include "settings.h"

static const char SCHEMA[] =
    "{\n"
    "  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n"
    "  \"title\": \"Night and weekend rates\",\n"
    "  \"type\": \"object\",\n"
    "  \"additionalProperties\": false,\n"
    "  \"properties\": {\n"
    "    \"sats_per_hour\": {\n"
    "      \"type\": \"integer\", \"minimum\": 1, \"maximum\": 10000000000, \"default\": 60,\n"
    "      \"description\": \"The price of an hour on weekdays, by day.\"\n"
    "    },\n"
    "    \"minimum_sat\": {\n"
    "      \"type\": \"integer\", \"minimum\": 0, \"maximum\": 10000000000, \"default\": 1,\n"
    "      \"description\": \"The smallest net amount that is accepted, in sat.\"\n"
    "    },\n"
    "    \"cpu_millicores\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 1000000, \"default\": 1000},\n"
    "    \"memory_mib\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 16777216, \"default\": 1024},\n"
    "    \"night_percent\": {\n"
    "      \"type\": \"integer\", \"minimum\": 1, \"maximum\": 100, \"default\": 70,\n"
    "      \"description\": \"The night price, in percent of the day price.\"\n"
    "    },\n"
    "    \"weekend_percent\": {\n"
    "      \"type\": \"integer\", \"minimum\": 1, \"maximum\": 100, \"default\": 80,\n"
    "      \"description\": \"The price on Saturdays and Sundays, in percent. In their nights the lower price applies.\"\n"
    "    },\n"
    "    \"night_from_hour\": {\n"
    "      \"type\": \"integer\", \"minimum\": 0, \"maximum\": 23, \"default\": 22,\n"
    "      \"description\": \"The hour at which the night begins, in local time.\"\n"
    "    },\n"
    "    \"night_to_hour\": {\n"
    "      \"type\": \"integer\", \"minimum\": 0, \"maximum\": 23, \"default\": 6,\n"
    "      \"description\": \"The hour at which the night ends. If equal to night_from_hour, there is no night.\"\n"
    "    },\n"
    "    \"utc_offset_minutes\": {\n"
    "      \"type\": \"integer\", \"minimum\": -720, \"maximum\": 840, \"default\": 0,\n"
    "      \"description\": \"The offset of local time from UTC. Daylight saving time is not supported.\"\n"
    "    }\n"
    "  }\n"
    "}";

enum {
    SATS_PER_HOUR,
    MINIMUM_SAT,
    CPU_MILLICORES,
    MEMORY_MIB,
    NIGHT_PERCENT,
    WEEKEND_PERCENT,
    NIGHT_FROM_HOUR,
    NIGHT_TO_HOUR,
    UTC_OFFSET_MINUTES,
    COUNT
};

// The maximum is a hundred bitcoin per hour: more is a mistake in the settings.
static setting settings[COUNT] = {
    [SATS_PER_HOUR] = {.name = "sats_per_hour", .number = 60, .least = 1, .most = 10000000000},
    [MINIMUM_SAT] = {.name = "minimum_sat", .number = 1, .least = 0, .most = 10000000000},
    [CPU_MILLICORES] = {.name = "cpu_millicores", .number = 1000, .least = 1, .most = 1000000},
    [MEMORY_MIB] = {.name = "memory_mib", .number = 1024, .least = 1, .most = 16777216},
    [NIGHT_PERCENT] = {.name = "night_percent", .number = 70, .least = 1, .most = 100},
    [WEEKEND_PERCENT] = {.name = "weekend_percent", .number = 80, .least = 1, .most = 100},
    [NIGHT_FROM_HOUR] = {.name = "night_from_hour", .number = 22, .least = 0, .most = 23},
    [NIGHT_TO_HOUR] = {.name = "night_to_hour", .number = 6, .least = 0, .most = 23},
    [UTC_OFFSET_MINUTES] = {.name = "utc_offset_minutes", .number = 0, .least = -720, .most = 840},
};

void exports_paygress_policy_settings_schema(string *schema) { *schema = TEXT(SCHEMA); }

bool exports_paygress_policy_settings_configure(string *json, problem_list *problems) {
    read_settings(*json, settings, COUNT, problems);
    return problems->len == 0;
}

// The price at this time, in percent of the day price.
static int64_t percent(uint64_t now) {
    enum { HOUR = 60, DAY = 24 * HOUR, WEEK = 7 * DAY };
    // 1 January 1970 was a Thursday; weeks begin on Monday. Adding a week keeps it positive for negative offsets.
    int64_t minute = (int64_t)(now / 60 % WEEK) + 3 * DAY + WEEK + settings[UTC_OFFSET_MINUTES].number;
    int64_t day = minute / DAY % 7, hour = minute % DAY / HOUR;
    int64_t from = settings[NIGHT_FROM_HOUR].number, to = settings[NIGHT_TO_HOUR].number;
    // Most nights include midnight.
    bool night = from <= to ? from <= hour && hour < to : hour >= from || hour < to;
    int64_t lowest = 100;
    if (night && settings[NIGHT_PERCENT].number < lowest) lowest = settings[NIGHT_PERCENT].number;
    if (day >= 5 && settings[WEEKEND_PERCENT].number < lowest) lowest = settings[WEEKEND_PERCENT].number;
    return lowest;
}

static paygress_policy_types_quote_t quote(uint64_t now) {
    return (paygress_policy_types_quote_t){
        .tier = TEXT("standard"),
        .resources = {(uint32_t)settings[CPU_MILLICORES].number, (uint32_t)settings[MEMORY_MIB].number},
        // Exact: sat × 1000 × percent / 100 msat, at most 1e13, which fits in 64 bits.
        .price = {(uint64_t)(settings[SATS_PER_HOUR].number * 10 * percent(now)), 3600},
        .minimum_sat = (uint64_t)settings[MINIMUM_SAT].number,
    };
}

void exports_paygress_policy_pricing_offers(paygress_policy_types_context_t *context, exports_paygress_policy_pricing_list_offer_t *offers) {
    static paygress_policy_types_offer_t offer;
    paygress_policy_types_quote_t now = quote(context->now_unix_seconds);
    offer = (paygress_policy_types_offer_t){
        .id = now.tier,
        .name = TEXT("Standard"),
        .description = TEXT("A pod with SSH. Cheaper at night and on weekends; this is the current price."),
        .resources = now.resources,
        .price = now.price,
        .minimum_sat = now.minimum_sat,
    };
    offers->ptr = &offer;
    offers->len = 1;
}

bool exports_paygress_policy_pricing_quote(paygress_policy_types_order_t *order, paygress_policy_types_context_t *context,
                                           paygress_policy_types_quote_t *quoted, paygress_policy_types_refusal_t *refusal) {
    // An extension is of the tier of the running pod.
    const string *tier = order->tier.is_some ? &order->tier.val : NULL;
    if (order->purpose.tag == PAYGRESS_POLICY_TYPES_PURPOSE_EXTEND) tier = &order->purpose.val.extend.tier;
    *quoted = quote(context->now_unix_seconds);
    if (!tier || same(*tier, quoted->tier)) return true;
    *refusal = (paygress_policy_types_refusal_t){TEXT("invalid_spec"), TEXT("there is no such tier; choose: standard")};
    return false;
}
