//! The guard over rendered templates: what a pod may say at all, field by field, and what it must
//! say.
//!
//! It is an allowlist: a field that is not named here is refused, and so is every field that
//! Kubernetes will invent. The result is what the `restricted` Pod Security Standard asks for, but
//! for the one host port.

use k8s_openapi::api::core::v1::{PodTemplateSpec, Service};
use paygress_core::backend::policy::{Placement, Rendered};
use serde_json::{Map, Value, json};

/// A template that passed, completed with what every pod must have.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The pod's template.
    pub template: PodTemplateSpec,
    /// Its Services.
    pub services: Vec<Service>,
}

/// What templates may ask for beyond the ordinary, as the operator says: names, compared to the
/// letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Extended resources: `nvidia.com/gpu`.
    pub devices: Vec<String>,
    /// Runtime classes: `gvisor`.
    pub runtime_classes: Vec<String>,
    /// Keys of taints that pods may tolerate.
    pub tolerations: Vec<String>,
}

/// The longest that a pod may take to end, in seconds: its port is not free before.
const GRACE_SECONDS: i64 = 30;
/// Volumes and environment variables of a pod.
const VOLUMES: usize = 8;
const VARIABLES: usize = 64;

/// Reads and completes a rendered template.
///
/// # Errors
/// The first field that asks for too much, by its path, and why.
pub fn check(
    rendered: &Rendered,
    placement: &Placement,
    allowed: &Allowed,
) -> Result<Checked, String> {
    let template = parse(&rendered.pod_template_json, "pod template")?;
    let services: Result<Vec<Value>, String> =
        rendered.services_json.iter().map(|service| parse(service, "Service")).collect();
    all(template, services?, placement, allowed)
}

fn parse(json: &str, what: &str) -> Result<Value, String> {
    serde_json::from_str(json).map_err(|error| format!("the {what} is not JSON: {error}"))
}

fn all(
    mut template: Value,
    mut services: Vec<Value>,
    placement: &Placement,
    allowed: &Allowed,
) -> Result<Checked, String> {
    let host_port = pod(&mut At::root("template", &mut template), placement, allowed)?;
    let mut node_port = false;
    for (index, value) in services.iter_mut().enumerate() {
        let taken = service(&mut At::root(&format!("services[{index}]"), value), placement, index)?;
        if taken && node_port {
            return Err(format!(
                "services[{index}] is a second one with a nodePort; a pod has one"
            ));
        }
        node_port |= taken;
    }
    match (host_port, node_port) {
        (true, true) => {
            return Err(format!(
                "both a hostPort and a Service take port {}; use one of them",
                placement.host_port
            ));
        }
        (false, false) => {
            return Err(format!(
                "neither a hostPort nor a nodePort is {}: nobody could log in",
                placement.host_port
            ));
        }
        _ => {}
    }
    // Typed only now: the typed form drops what it does not know, and nothing unknown may get this
    // far.
    let typed =
        |error: serde_json::Error| format!("the template has a field of the wrong type: {error}");
    Ok(Checked {
        template: serde_json::from_value(template).map_err(typed)?,
        services: services
            .into_iter()
            .map(|service| serde_json::from_value(service).map_err(typed))
            .collect::<Result<_, _>>()?,
    })
}

/// A place in the template: an object, and its path for messages.
struct At<'a> {
    path: String,
    value: &'a mut Value,
}

impl<'a> At<'a> {
    fn root(path: &str, value: &'a mut Value) -> Self {
        Self { path: path.to_owned(), value }
    }

    fn err<T>(&self, field: &str, why: &str) -> Result<T, String> {
        Err(format!("{}.{field} {why}", self.path))
    }

    /// The object here, if all its fields are known.
    fn only(&mut self, known: &[&str]) -> Result<&mut Map<String, Value>, String> {
        let path = &self.path;
        let object =
            self.value.as_object_mut().ok_or_else(|| format!("{path} must be an object"))?;
        object.retain(|_, value| !value.is_null());
        match object.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(format!("{path}.{key:.63} is not allowed")),
            None => Ok(object),
        }
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.value.get(field)
    }

    fn set(&mut self, field: &str, value: Value) {
        if let Some(object) = self.value.as_object_mut() {
            object.insert(field.to_owned(), value);
        }
    }

    /// The field must be left out or be this; then it is this.
    fn fix(&mut self, field: &str, value: Value) -> Result<(), String> {
        match self.get(field) {
            Some(found) if *found != value => self.err(field, &format!("must be {value}")),
            _ => {
                self.set(field, value);
                Ok(())
            }
        }
    }

    /// A number that may be left out.
    fn number(&self, field: &str, range: std::ops::RangeInclusive<i64>) -> Result<(), String> {
        match self.get(field) {
            Some(found) if !found.as_i64().is_some_and(|number| range.contains(&number)) => self
                .err(field, &format!("must be a number from {} to {}", range.start(), range.end())),
            _ => Ok(()),
        }
    }

    /// The object in a field, made if it is not there. What is not an object is told so by the next
    /// `only`.
    fn object(&mut self, field: &str) -> At<'_> {
        let path = format!("{}.{field}", self.path);
        if !self.value.is_object() {
            return At { path, value: self.value };
        }
        // Indexing an object makes the field, as null.
        #[allow(clippy::indexing_slicing)]
        let value = &mut self.value[field];
        if value.is_null() {
            *value = json!({});
        }
        At { path, value }
    }

    /// The objects of a list that may be left out.
    fn list(&mut self, field: &str) -> Result<Vec<At<'_>>, String> {
        let path = format!("{}.{field}", self.path);
        match self.value.get_mut(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items
                .iter_mut()
                .enumerate()
                .map(|(index, value)| At { path: format!("{path}[{index}]"), value })
                .collect()),
            Some(_) => Err(format!("{path} must be a list")),
        }
    }
}

fn is_one_of(value: &Value, names: &[String]) -> bool {
    value.as_str().is_some_and(|value| names.iter().any(|name| name == value))
}

const RESERVED_LABELS: [&str; 3] = ["app", "job-name", "controller-uid"];

fn pod(template: &mut At<'_>, placement: &Placement, allowed: &Allowed) -> Result<bool, String> {
    template.only(&["metadata", "spec"])?;
    let mut metadata = template.object("metadata");
    metadata.only(&["labels"])?;
    if let Some(labels) = metadata.get("labels") {
        let labels = labels.as_object().ok_or("template.metadata.labels must be an object")?;
        if let Some(label) =
            labels.keys().find(|key| RESERVED_LABELS.contains(&key.as_str()) || key.contains('/'))
        {
            return Err(format!(
                "template.metadata.labels.{label:.63} is the host's or the cluster's; use a name of your own without a slash"
            ));
        }
    }
    let mut spec = template.object("spec");
    spec.only(&[
        "affinity",
        "automountServiceAccountToken",
        "containers",
        "dnsPolicy",
        "enableServiceLinks",
        "hostUsers",
        "nodeSelector",
        "restartPolicy",
        "runtimeClassName",
        "securityContext",
        "terminationGracePeriodSeconds",
        "tolerations",
        "topologySpreadConstraints",
        "volumes",
    ])?;
    spec.fix("automountServiceAccountToken", json!(false))?;
    spec.fix("enableServiceLinks", json!(false))?;
    spec.number("terminationGracePeriodSeconds", 0..=GRACE_SECONDS)?;
    if spec.get("hostUsers").is_some() {
        spec.fix("hostUsers", json!(false))?;
    }
    if spec.get("runtimeClassName").is_some_and(|class| !is_one_of(class, &allowed.runtime_classes))
    {
        return spec.err("runtimeClassName", "is not one of the operator's POD_RUNTIME_CLASSES");
    }
    for mut toleration in spec.list("tolerations")? {
        toleration.only(&["effect", "key", "operator", "tolerationSeconds", "value"])?;
        if !toleration.get("key").is_some_and(|key| is_one_of(key, &allowed.tolerations)) {
            return toleration.err("key", "is not one of the operator's POD_TOLERATIONS");
        }
    }
    match spec.get("restartPolicy").and_then(Value::as_str) {
        Some("Never" | "OnFailure") => {}
        _ => return spec.err("restartPolicy", "must be Never or OnFailure"),
    }
    match spec.get("dnsPolicy").map(Value::as_str) {
        None | Some(Some("ClusterFirst" | "Default")) => {}
        _ => return spec.err("dnsPolicy", "must be ClusterFirst or Default"),
    }
    security(
        &mut spec.object("securityContext"),
        &[
            "fsGroup",
            "fsGroupChangePolicy",
            "runAsGroup",
            "runAsNonRoot",
            "runAsUser",
            "seccompProfile",
            "supplementalGroups",
        ],
    )?;
    volumes(&mut spec, placement)?;
    let mut containers = spec.list("containers")?;
    match containers.as_mut_slice() {
        [one] => container(one, placement, allowed),
        _ => spec.err("containers", "must hold exactly one container"),
    }
}

/// What pod and container have in common: a user that is not root, and the runtime's seccomp
/// profile.
fn security(context: &mut At<'_>, known: &[&str]) -> Result<(), String> {
    context.only(known)?;
    context.fix("runAsNonRoot", json!(true))?;
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        context.number(field, 1..=i64::from(i32::MAX))?;
    }
    if let Some(groups) = context.get("supplementalGroups")
        && !groups.as_array().is_some_and(|groups| {
            groups.iter().all(|group| group.as_i64().is_some_and(|id| id > 0))
        })
    {
        return context.err("supplementalGroups", "must be a list of numbers above 0");
    }
    context.fix("seccompProfile", json!({"type": "RuntimeDefault"}))
}

fn volumes(spec: &mut At<'_>, placement: &Placement) -> Result<(), String> {
    let volumes = spec.list("volumes")?;
    if volumes.len() > VOLUMES {
        return spec.err("volumes", &format!("must not hold more than {VOLUMES}"));
    }
    for mut volume in volumes {
        volume.only(&["name", "emptyDir", "secret"])?;
        if volume.get("emptyDir").is_some() {
            volume.object("emptyDir").only(&["medium", "sizeLimit"])?;
        }
        if volume.get("secret").is_some() {
            let mut secret = volume.object("secret");
            secret.only(&["defaultMode", "items", "secretName"])?;
            secret.fix("secretName", json!(placement.secret_name))?;
        }
        if volume.get("emptyDir").is_some() == volume.get("secret").is_some() {
            return Err(format!(
                "{} must be either an emptyDir or the login's Secret",
                volume.path
            ));
        }
    }
    Ok(())
}

fn container(
    container: &mut At<'_>,
    placement: &Placement,
    allowed: &Allowed,
) -> Result<bool, String> {
    container.only(&[
        "args",
        "command",
        "env",
        "image",
        "imagePullPolicy",
        "livenessProbe",
        "name",
        "ports",
        "readinessProbe",
        "resources",
        "securityContext",
        "startupProbe",
        "stdin",
        "terminationMessagePolicy",
        "tty",
        "volumeMounts",
        "workingDir",
    ])?;
    if container.get("image") != Some(&json!(placement.image)) {
        return container.err("image", "must be the admitted image");
    }
    let mut context = container.object("securityContext");
    security(
        &mut context,
        &[
            "allowPrivilegeEscalation",
            "capabilities",
            "privileged",
            "readOnlyRootFilesystem",
            "runAsGroup",
            "runAsNonRoot",
            "runAsUser",
            "seccompProfile",
        ],
    )?;
    context.fix("privileged", json!(false))?;
    context.fix("allowPrivilegeEscalation", json!(false))?;
    context.fix("capabilities", json!({"drop": ["ALL"]}))?;
    resources(&mut container.object("resources"), placement, allowed)?;
    let variables = container.list("env")?;
    if variables.len() > VARIABLES {
        return container.err("env", &format!("must not hold more than {VARIABLES}"));
    }
    for mut variable in variables {
        variable.only(&["name", "value"])?;
    }
    for mut mount in container.list("volumeMounts")? {
        mount.only(&["mountPath", "name", "readOnly"])?;
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container.get(probe).is_some() {
            let mut probe = container.object(probe);
            probe.only(&[
                "exec",
                "failureThreshold",
                "initialDelaySeconds",
                "periodSeconds",
                "successThreshold",
                "tcpSocket",
                "timeoutSeconds",
            ])?;
            if probe.get("tcpSocket").is_some() {
                // With a host the kubelet would connect where the template says.
                probe.object("tcpSocket").only(&["port"])?;
            }
        }
    }
    ports(container, placement)
}

fn ports(container: &mut At<'_>, placement: &Placement) -> Result<bool, String> {
    let mut host_port = false;
    for mut port in container.list("ports")? {
        port.only(&["containerPort", "hostPort", "name", "protocol"])?;
        if port.get("hostPort").is_some() {
            if host_port {
                return port.err("hostPort", "is a second one; a pod has one");
            }
            port.fix("hostPort", json!(placement.host_port))?;
            port.fix("containerPort", json!(placement.container_port))?;
            port.fix("protocol", json!("TCP"))?;
            host_port = true;
        }
    }
    Ok(host_port)
}

/// CPU and memory are what was sold; storage is the template's, and so are the devices that the
/// operator allows.
fn resources(
    resources: &mut At<'_>,
    placement: &Placement,
    allowed: &Allowed,
) -> Result<(), String> {
    resources.only(&["limits", "requests"])?;
    let (cpu, memory) = (
        format!("{}m", placement.resources.cpu_millicores),
        format!("{}Mi", placement.resources.memory_mib),
    );
    for field in ["limits", "requests"] {
        let mut amounts = resources.object(field);
        let known = ["cpu", "memory", "ephemeral-storage"];
        let object = amounts
            .value
            .as_object()
            .ok_or_else(|| format!("{} must be an object", amounts.path))?;
        if let Some(other) = object
            .keys()
            .find(|key| !known.contains(&key.as_str()) && !allowed.devices.contains(key))
        {
            return amounts.err(
                &format!("{other:.63}"),
                "is not allowed; devices are those of the operator's POD_DEVICES",
            );
        }
        amounts.fix("cpu", json!(cpu))?;
        amounts.fix("memory", json!(memory))?;
    }
    Ok(())
}

fn service(service: &mut At<'_>, placement: &Placement, index: usize) -> Result<bool, String> {
    service.only(&["apiVersion", "kind", "metadata", "spec"])?;
    service.fix("apiVersion", json!("v1"))?;
    service.fix("kind", json!("Service"))?;
    // The name is the host's: it must not meet another lease's.
    service.object("metadata").only(&[])?;
    let name = if index == 0 {
        placement.pod_name.clone()
    } else {
        format!("{}-{index}", placement.pod_name)
    };
    service.object("metadata").set("name", json!(name));
    let mut spec = service.object("spec");
    spec.only(&["externalTrafficPolicy", "ports", "type"])?;
    let node = match spec.get("type").map(Value::as_str) {
        None | Some(Some("ClusterIP")) => false,
        Some(Some("NodePort")) => true,
        _ => return spec.err("type", "must be ClusterIP or NodePort"),
    };
    let mut taken = false;
    for mut port in spec.list("ports")? {
        port.only(&["name", "nodePort", "port", "protocol", "targetPort"])?;
        if node {
            // One node port a lease: the reserved one.
            if taken {
                return port.err("nodePort", "is a second one; a pod has one");
            }
            port.fix("nodePort", json!(placement.host_port))?;
            port.fix("targetPort", json!(placement.container_port))?;
            port.fix("protocol", json!("TCP"))?;
            taken = true;
        }
    }
    Ok(taken)
}
