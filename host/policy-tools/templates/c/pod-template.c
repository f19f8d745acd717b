// A pod-template policy: one container that serves SSH on a port of its node, without any privilege.
#include "settings.h"
#include <stdlib.h>

enum { USER_ID, COUNT };

// The values are the defaults until `configure`, which the host calls first in every instance, has read others.
static setting settings[COUNT] = {
    [USER_ID] = NUMBER("user_id", 1000, 1, 2147483647, "The user and group that the pod runs as."),
};

void exports_paygress_policy_settings_schema(string *schema) { *schema = write_schema("A pod with SSH", settings, COUNT); }

bool exports_paygress_policy_settings_configure(string *json, problem_list *problems) {
    return read_settings(*json, settings, COUNT, NULL, problems);
}

// Whether customers may reach the pod at a port of its node.
static bool has_host_port(const exports_paygress_policy_pod_template_list_access_mode_t *access) {
    for (size_t i = 0; i < access->len; i++) {
        if (access->ptr[i] == EXPORTS_PAYGRESS_POLICY_POD_TEMPLATE_ACCESS_MODE_HOST_PORT) return true;
    }
    return false;
}

// Writes a template, and fills in what begins with a dollar sign.
static string fill(const char *template, const paygress_policy_types_placement_t *placement, bool host_port) {
    writer json = write_text(65536);
    for (const char *at = template; *at; at++) {
        if (*at != '$') {
            put_text(&json, (string){(uint8_t *)at, 1});
            continue;
        }
        switch (*++at) {
        case 'i': put_json(&json, placement->image); break;
        case 's': put_json(&json, placement->secret_name); break;
        case 'd': put_json(&json, placement->secret_mount_path); break;
        case 'c': put_number(&json, placement->container_port); break;
        case 'h':
            if (!host_port) break;
            put(&json, ", \"hostPort\": ");
            put_number(&json, placement->host_port);
            break;
        case 'p': put_number(&json, placement->resources.cpu_millicores); break;
        case 'm': put_number(&json, placement->resources.memory_mib); break;
        case 'u': put_number(&json, settings[USER_ID].number); break;
        default: abort();
        }
    }
    return json.text;
}

// True: it is rendered. This policy refuses nothing.
bool exports_paygress_policy_pod_template_render(paygress_policy_types_order_t *order, paygress_policy_types_grant_t *grant,
                                                 paygress_policy_types_placement_t *placement,
                                                 exports_paygress_policy_pod_template_list_access_mode_t *access, string *tier,
                                                 exports_paygress_policy_pod_template_rendered_pod_t *rendered,
                                                 paygress_policy_types_refusal_t *refusal) {
    (void)order, (void)grant, (void)tier, (void)refusal;
    static const char TEMPLATE[] =
        "{\"spec\": {"
        " \"restartPolicy\": \"Never\","
        " \"automountServiceAccountToken\": false,"
        " \"enableServiceLinks\": false,"
        " \"terminationGracePeriodSeconds\": 2,"
        " \"securityContext\": {"
        "  \"runAsNonRoot\": true, \"runAsUser\": $u, \"runAsGroup\": $u, \"fsGroup\": $u,"
        "  \"seccompProfile\": {\"type\": \"RuntimeDefault\"}},"
        " \"containers\": [{"
        "  \"name\": \"ssh\","
        "  \"image\": $i,"
        "  \"imagePullPolicy\": \"IfNotPresent\","
        "  \"ports\": [{\"name\": \"ssh\", \"containerPort\": $c$h, \"protocol\": \"TCP\"}],"
        "  \"resources\": {\"requests\": {\"cpu\": \"$pm\", \"memory\": \"$mMi\"}, \"limits\": {\"cpu\": \"$pm\", \"memory\": \"$mMi\"}},"
        "  \"securityContext\": {\"allowPrivilegeEscalation\": false, \"capabilities\": {\"drop\": [\"ALL\"]}},"
        "  \"readinessProbe\": {\"tcpSocket\": {\"port\": $c}, \"periodSeconds\": 1, \"failureThreshold\": 600},"
        "  \"volumeMounts\": [{\"name\": \"login\", \"mountPath\": $d, \"readOnly\": true}]}],"
        " \"volumes\": [{\"name\": \"login\", \"secret\": {\"secretName\": $s, \"defaultMode\": 288}}]}}";
    *rendered = (exports_paygress_policy_pod_template_rendered_pod_t){
        .objects = {.pod_template_json = fill(TEMPLATE, placement, has_host_port(access))},
    };
    return true;
}
