//! The image's own program beside the SSH server (`run: image`).
//!
//! ```text
//! initContainers  paygress-ssh    ends     brings the server and its host keys
//!                 ssh             sidecar  the template's container, with the server
//!                 paygress-image  sidecar  the same image, with what it starts by itself
//! containers      paygress-pod             has the port of the node, if any, and does nothing
//! ```
//!
//! The kubelet restarts sidecars however they end, and they decide neither the pod's end nor the
//! Job's. It starts each of them, and the containers, only after it has seen the one before run. So
//! the program comes after the server: one that ends at once keeps nothing up but `paygress-pod`.
//!
//! What was sold is divided among the three.

use crate::guard::Overcommit;
use crate::quantity::whole;
use crate::ssh_server::{HOLDER_CONTAINER, PROGRAM_CONTAINER, VOLUME};
use k8s_openapi::api::core::v1::{
    Container, PodSpec, PodTemplateSpec, ResourceRequirements, Service, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use paygress_core::backend::policy::Resources;
use paygress_core::model::refusal::{ErrorType, Refusal};
use std::collections::BTreeMap;

/// What the container does that has the port of the node: the kubelet opens ports of `containers`
/// alone.
const HOLD: [&str; 2] = ["/bin/paygress-sshd", "hold"];
const ALWAYS: &str = "Always";
/// What the holder has of what was sold. A runtime starts no container with much less.
const HELD: Resources = Resources { cpu_millicores: 20, memory_mib: 32 };
/// Of the node's disk.
const HELD_STORAGE: &str = "16Mi";
/// The least that the server and the program have each.
const LEAST: Resources = Resources { cpu_millicores: 20, memory_mib: 32 };
const STORAGE: &str = "ephemeral-storage";

type Quantities = BTreeMap<String, Quantity>;

/// What is put into the pod of an order with `run: image`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageProgram<'a> {
    /// The image with the SSH server.
    pub(crate) server_image: &'a str,
    /// Those of the pod.
    pub(crate) services: &'a [Service],
    pub(crate) sold: Resources,
    pub(crate) overcommit: Overcommit,
}

impl ImageProgram<'_> {
    /// Adds it to a checked template in which the host's SSH server is.
    pub(crate) fn add(&self, template: &mut PodTemplateSpec) -> Result<(), Refusal> {
        let [for_server, for_program] = halves(self.sold)?;
        let spec = template.spec.as_mut().ok_or_else(not_possible)?;
        let shared = empty_dirs(spec);
        let PodSpec { containers, init_containers, restart_policy, .. } = spec;
        let [container] = containers.as_mut_slice() else { return Err(not_possible()) };
        let inits = init_containers.get_or_insert_default();
        // A Service knows only pods all of whose containers are ready: the program may not be.
        if inits.len() != 1 || self.services.iter().any(has_node_port) {
            return Err(not_possible());
        }
        let sold = container.resources.take().unwrap_or_default();
        let program = Container {
            name: PROGRAM_CONTAINER.to_owned(),
            image: container.image.clone(),
            image_pull_policy: container.image_pull_policy.clone(),
            env: container.env.clone(),
            security_context: container.security_context.clone(),
            resources: Some(self.requirements(for_program, &sold, |_| true)),
            volume_mounts: container.volume_mounts.as_ref().map(|mounts| {
                mounts.iter().filter(|mount| shared.contains(&mount.name)).cloned().collect()
            }),
            restart_policy: Some(ALWAYS.to_owned()),
            ..Container::default()
        };
        let holder = self.holder(container);
        let mut server = std::mem::replace(container, holder);
        server.resources = Some(self.requirements(for_server, &sold, |_| false));
        server.restart_policy = Some(ALWAYS.to_owned());
        inits.extend([server, program]);
        // A Job counts the restarts of all containers, sidecars too, where one may be restarted.
        *restart_policy = Some("Never".to_owned());
        Ok(())
    }

    /// Takes the port of the node from the server's container. Its ports stay there, since probes
    /// name them.
    fn holder(&self, server: &mut Container) -> Container {
        let mut resources = self.requirements(HELD, &ResourceRequirements::default(), |_| false);
        for amounts in [&mut resources.limits, &mut resources.requests] {
            let storage = Quantity(HELD_STORAGE.to_owned());
            amounts.get_or_insert_default().insert(STORAGE.to_owned(), storage);
        }
        let ports = server.ports.clone();
        for port in server.ports.iter_mut().flatten() {
            port.host_port = None;
        }
        Container {
            name: HOLDER_CONTAINER.to_owned(),
            image: Some(self.server_image.to_owned()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            command: Some(HOLD.map(str::to_owned).into()),
            ports,
            security_context: server.security_context.clone(),
            resources: Some(resources),
            ..Container::default()
        }
    }

    /// This CPU and memory, half of the storage, and the devices that are for this container.
    fn requirements(
        &self,
        share: Resources,
        sold: &ResourceRequirements,
        has_device: fn(&str) -> bool,
    ) -> ResourceRequirements {
        let with = |share: &Resources, sold: &Option<Quantities>| {
            let mut amounts = quantities(share);
            for (name, quantity) in sold.iter().flatten() {
                if name == STORAGE {
                    amounts.insert(name.clone(), half(quantity));
                } else if !amounts.contains_key(name) && has_device(name) {
                    amounts.insert(name.clone(), quantity.clone());
                }
            }
            Some(amounts)
        };
        ResourceRequirements {
            limits: with(&share, &sold.limits),
            requests: with(&self.overcommit.requests(&share), &sold.requests),
            ..ResourceRequirements::default()
        }
    }
}

/// What is of the SSH server in a list with an item for each init container: the one before the
/// program. None without a program.
pub(crate) fn server_sidecar<T>(inits: &[T], name: fn(&T) -> &str) -> Option<&T> {
    let program = inits.iter().position(|init| name(init) == PROGRAM_CONTAINER)?;
    inits.get(program.checked_sub(1)?)
}

/// Whether customers come through it.
pub(crate) fn has_node_port(service: &Service) -> bool {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    kind == Some("NodePort")
}

/// Those of the template: server and program have them at the same places.
fn empty_dirs(spec: &PodSpec) -> Vec<String> {
    let is_shared = |volume: &&Volume| volume.empty_dir.is_some() && volume.name != VOLUME;
    spec.volumes.iter().flatten().filter(is_shared).map(|volume| volume.name.clone()).collect()
}

/// What the server and the program have of what was sold.
fn halves(sold: Resources) -> Result<[Resources; 2], Refusal> {
    let cpu = halve(sold.cpu_millicores, HELD.cpu_millicores, LEAST.cpu_millicores);
    let memory = halve(sold.memory_mib, HELD.memory_mib, LEAST.memory_mib);
    let (Some(cpu), Some(memory)) = (cpu, memory) else { return Err(too_small()) };
    let share = |(cpu_millicores, memory_mib)| Resources { cpu_millicores, memory_mib };
    Ok([(cpu.0, memory.0), (cpu.1, memory.1)].map(share))
}

/// The program has what is odd.
fn halve(sold: u32, held: u32, least: u32) -> Option<(u32, u32)> {
    let left = sold.checked_sub(held)?;
    let server = left.checked_div(2)?;
    (server >= least).then(|| (server, left.saturating_sub(server)))
}

fn quantities(resources: &Resources) -> Quantities {
    let Resources { cpu_millicores, memory_mib } = resources;
    [("cpu", format!("{cpu_millicores}m")), ("memory", format!("{memory_mib}Mi"))]
        .map(|(name, quantity)| (name.to_owned(), Quantity(quantity)))
        .into()
}

/// In bytes; what cannot be read stays as it is, and the API server refuses it.
fn half(quantity: &Quantity) -> Quantity {
    let bytes = whole(quantity).and_then(|bytes| bytes.checked_div(2));
    bytes.map_or_else(|| quantity.clone(), |bytes| Quantity(bytes.to_string()))
}

fn not_possible() -> Refusal {
    let text = "this operator's pods cannot run an image's own program; leave run out";
    Refusal::new(ErrorType::InvalidRequest, text)
}

fn too_small() -> Refusal {
    let text = "this tier is too small for an image's own program beside the SSH server; choose a larger one, or leave run out";
    Refusal::new(ErrorType::InvalidSpec, text)
}

#[cfg(test)]
mod tests;
