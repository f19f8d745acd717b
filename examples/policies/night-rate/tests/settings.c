// cc -std=c17 -I tests -I lib tests/settings.c lib/settings.c lib/json.c lib/text.c -o tests.part && ./tests.part
//
// The cases are a part of plugins/sdk/tests/cases.json, with the texts that are there.
#include "settings.h"
#include <stdio.h>
#include <string.h>

static const char *odd(string text) { return text.len % 2 == 0 ? "must be odd" : NULL; }

enum { SECONDS, ENABLED, IMAGE, LABELS, COUNT };

static const setting DECLARED[COUNT] = {
    [SECONDS] = NUMBER("seconds", 60, 1, 3600, "A \"comment\"."),
    [ENABLED] = TRUTH("enabled", false, NULL),
    [IMAGE] = STRING("image", "a:1", odd, NULL),
    [LABELS] = STRINGS("labels", 2, NULL, NULL),
};
static setting settings[COUNT];

static void check(problem_list *problems) {
    if (settings[ENABLED].number && settings[SECONDS].number > 100) {
        note(problems, "seconds", "must not be more than 100 when enabled");
    }
}

static string of(const char *text) { return (string){(uint8_t *)text, strlen(text)}; }

// A line for each problem.
static const char *problems_of(string json) {
    static char lines[65536];
    problem_list problems;
    char *at = lines;
    *at = 0;
    memcpy(settings, DECLARED, sizeof settings);
    bool good = read_settings(json, settings, COUNT, check, &problems);
    if (good != (problems.len == 0)) return "it returns another result";
    for (size_t i = 0; i < problems.len; i++) {
        problem each = problems.ptr[i];
        if (each.path.len > 500 || each.message.len > 500) return "a problem is too long";
        at += sprintf(at, "%.*s %.*s\n", (int)each.path.len, (char *)each.path.ptr, (int)each.message.len, (char *)each.message.ptr);
    }
    return lines;
}

static int failures = 0;

static void expect(const char *what, const char *found, const char *expected) {
    if (strcmp(found, expected) == 0) return;
    failures++;
    printf("%s\nfound:\n%s\nexpected:\n%s\n", what, found, expected);
}

#define KNOWN " is not a setting; known are: seconds, enabled, image, labels\n"

static const char *CASES[][2] = {
    {"{}", ""},
    {"{\"seconds\": 3600, \"enabled\": false, \"image\": \"b/c:2\", \"labels\": [\"\", \"a\"]}", ""},
    {" { \"seconds\" : 1 , \"labels\" : [ \"\\u00fc\" , \"a\" ] } ", ""},
    {"{\"b\": 1, \"a\": [{}], \"b\": 2, \"labels\": [\"a\", 1, \"b\", \"c\"], \"image\": \"\", \"enabled\": 1, \"seconds\": null}",
     "/seconds must be a whole number from 1 to 3600\n"
     "/enabled must be true or false\n"
     "/image must be a text of 1 to 512 bytes\n"
     "/labels/1 must be a text\n"
     "/labels must have at most 2 entries\n"
     "/a" KNOWN "/b" KNOWN},
    {"{\"labels\": \"x\", \"image\": 1, \"seconds\": 1.5}",
     "/seconds must be a whole number from 1 to 3600\n"
     "/image must be a text of 1 to 512 bytes\n"
     "/labels must be a list of texts\n"},
    {"{\"typo\": 1, \"enabled\": true, \"seconds\": 101}", "/seconds must not be more than 100 when enabled\n/typo" KNOWN},
    {"{\"enabled\": true, \"seconds\": 3601}", "/seconds must be a whole number from 1 to 3600\n"},
    {"{\"labels\": [1, \"a\", \"b\"], \"image\": \"ab\"}", "/image must be odd\n/labels/0 must be a text\n"},
    {"{\"x~/\": 1}", "/x~0~1" KNOWN},
    {"[]", " must be a JSON object\n"},
    {"null", " must be a JSON object\n"},
    {"", " is not JSON: reading ended at byte 0\n"},
    {"{\"seconds\": 1, nonsense}", " is not JSON: reading ended at byte 14\n"},
    {"{} {}", " is not JSON: reading ended at byte 3\n"},
};

static const char SCHEMA[] =
    "{\n"
    "  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n"
    "  \"title\": \"Of every kind\",\n"
    "  \"type\": \"object\",\n"
    "  \"additionalProperties\": false,\n"
    "  \"properties\": {\n"
    "    \"seconds\": {\n"
    "      \"type\": \"integer\", \"minimum\": 1, \"maximum\": 3600, \"default\": 60,\n"
    "      \"description\": \"A \\u0022comment\\u0022.\"\n"
    "    },\n"
    "    \"enabled\": {\n"
    "      \"type\": \"boolean\", \"default\": false\n"
    "    },\n"
    "    \"image\": {\n"
    "      \"type\": \"string\", \"default\": \"a:1\"\n"
    "    },\n"
    "    \"labels\": {\n"
    "      \"type\": \"array\", \"maxItems\": 2, \"items\": {\"type\": \"string\"}, \"default\": []\n"
    "    }\n"
    "  }\n"
    "}";

static void test_that_an_answer_is_bounded(void) {
    static char json[200000];
    char *at = json;
    *at++ = '{';
    for (int i = 0; i < 100; i++) {
        at += sprintf(at, "\"%03d", i);
        for (int j = 0; j < 500; j++) at += sprintf(at, "ü");
        at += sprintf(at, "\": 1,");
    }
    at[-1] = '}';
    const char *lines = problems_of(of(json));
    int count = 0;
    for (const char *line = lines; (line = strchr(line, '\n')); line++) count++;
    if (count != 64 || !strstr(lines, "ü… is not") || !strstr(lines, "/063") || strstr(lines, "/064")) {
        failures++;
        printf("%d problems:\n%s", count, lines);
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) expect(CASES[i][0], problems_of(of(CASES[i][0])), CASES[i][1]);
    string schema = write_schema("Of every kind", DECLARED, COUNT);
    static char text[65537];
    memcpy(text, schema.ptr, schema.len);
    expect("the schema", text, SCHEMA);
    problems_of(of("{\"seconds\": 7, \"labels\": [\"a\"]}"));
    bool read = settings[SECONDS].number == 7 && settings[LABELS].texts.len == 1 && same(settings[IMAGE].text, of("a:1"));
    expect("what is read", read ? "read" : "not read", "read");
    test_that_an_answer_is_bounded();
    return failures > 0;
}
