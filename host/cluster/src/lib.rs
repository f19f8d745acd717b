//! `paygress-cluster`: leases on a Kubernetes cluster.
//!
//! [`Kubernetes`] is all parts of a `paygress_core::Cluster`. A lease is a Job that owns the lease's
//! Secret and Services, and the NetworkPolicy of a pod that has its own. Kubernetes ends it (`activeDeadlineSeconds`) and cleans up after it
//! (`ttlSecondsAfterFinished`), whether or not this process runs; it raises the deadline, and
//! watches.
//!
//! ```text
//! LeasePlan ─▶ check_plan ─▶ objects: Job, Secret, Services ─┬─▶ dry_run: dryRun=All, the pod included
//!              (guard)       (ssh_server)                    │
//!                                                            └─▶ launch: suspended Job ─▶ Secret,
//!                                                                Services, NetworkPolicy ─▶ resume ─▶ ready
//!
//! watch of the Jobs ─▶ status ─▶ ClusterEvent::{Ended, Replaced, Resync}
//! watches of nodes, pods and quotas ─▶ capacity ─▶ Capacity: checked before a payment is taken
//!                                          └─▶ node_loss ─▶ ClusterEvent::NodeLost
//! ```
//!
//! [`guard::check`] passes or refuses what the policy rendered, field by field; nothing of it is
//! trusted. `ssh_server` adds what the host adds, root of a user namespace included, `pod_reply` what
//! a pod needs to write to its customer by itself, and `image_program` the image's own program for
//! orders that want it; `probe` launches a pod that finds out whether all of that works, and another
//! one that tries what no customer may reach (`isolation`). A pod is ready when its server has proved
//! itself (`pod_server`), or when the kubelet reports so.
//! `rights` is the table of what the service may do there; `admission` tries what it may not.
//! `pod_streams` connects the gateway with pods' SSH servers, which `recent_pods` knows for a moment, and
//! visitors with their HTTP ports, as many as `stream_permits` allows; `port_forward` is such a stream by
//! the API server.
//! [`check_plan()`] and [`lease_end()`] are public for other implementations of `Cluster`, such as the
//! sandbox's local pods.
//!
//! Only this crate and `paygress-policy-controller` know kube. [`connection`] and [`watches`] are what
//! they share.

mod admission;
mod api_client;
mod capacity;
mod check_plan;
pub mod connection;
pub mod guard;
mod image_program;
mod isolation;
mod kubernetes;
mod lease_end;
mod node_host;
mod node_loss;
mod objects;
mod pod_names;
mod pod_reply;
mod pod_server;
mod pod_streams;
mod pod_watch;
mod port_forward;
mod probe;
mod quantity;
mod recent_pods;
mod requests;
mod rights;
mod service_contact;
mod settings;
mod ssh_server;
mod status;
mod stream_permits;
pub mod watches;

pub use admission::{AdmissionFinding, AdmissionOutcome, HostPorts};
pub use capacity::{ExtraCapacity, ExtraCapacityError};
pub use check_plan::check_plan;
pub use connection::ConnectError;
pub use isolation::NetworkFindings;
pub use kubernetes::Kubernetes;
pub use lease_end::lease_end;
pub use rights::{RIGHTS, Right, RightPurpose};
pub use settings::{PodRoot, PodRoute, RunImage, Settings, SshHostFrom, SshServerVolume};
