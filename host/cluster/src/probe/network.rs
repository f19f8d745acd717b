//! The pod that tries what no customer may reach, and another one, which it tries as its neighbour.

use super::{Result, Server, as_probe, problem};
use crate::isolation::{NetworkFindings, listening, report, try_addresses};
use crate::kubernetes::Kubernetes;
use crate::objects::Objects;
use crate::pod_reply::ReplyStep;
use crate::ssh_server::{PodForm, ServerVolume};
use paygress_core::backend::cluster::{LeasePlan, Neighbours, ProbeProblem};
use std::net::SocketAddr;

/// One that has started.
struct Neighbour<'a> {
    plan: &'a LeasePlan,
    addresses: Vec<SocketAddr>,
}

impl Kubernetes {
    /// One whose container that copies the server tries the API server, the nodes and, if there is
    /// room for it, this neighbour.
    pub(super) async fn probe_network(
        &self,
        plan: &LeasePlan,
        neighbour: Option<&LeasePlan>,
    ) -> Result<()> {
        let Some(objects) = self.trying(plan)? else {
            self.note_findings(NetworkFindings::unknown());
            return Ok(());
        };
        let Some(neighbour) = neighbour else {
            return self.try_network_from(plan, objects, Err(Neighbours::NoRoom)).await;
        };
        let started = self.start_neighbour(neighbour).await?;
        let has_started = started.is_ok();
        let tried = self.try_network_from(plan, objects, started).await;
        self.remove_probe(&neighbour.lease.pod_name()).await;
        match tried {
            // The neighbour had the place.
            Err(ProbeProblem::Full) if has_started => match self.trying(plan)? {
                Some(objects) => {
                    self.try_network_from(plan, objects, Err(Neighbours::NoRoom)).await
                }
                None => tried,
            },
            Ok(()) | Err(_) => tried,
        }
    }

    /// The objects of a pod with a copy of the server; none if it has a server of its own, so that
    /// nothing in it would try.
    fn trying(&self, plan: &LeasePlan) -> Result<Option<Objects>> {
        let form = PodForm { volume: ServerVolume::Copy, ..self.form() };
        let objects = self.objects(plan, form, ReplyStep::Absent);
        let mut objects = objects.map_err(|error| problem(&error, None))?;
        let server = as_probe(&mut objects, plan.placement.container_port, self.settings().ttl);
        Ok((server != Server::Own).then_some(objects))
    }

    /// Launches the pod of these objects, notes what it reaches, and removes it.
    async fn try_network_from(
        &self,
        plan: &LeasePlan,
        mut objects: Objects,
        neighbour: std::result::Result<Neighbour<'_>, Neighbours>,
    ) -> Result<()> {
        // First: of the others some may be left out.
        let mut addresses = match &neighbour {
            Ok(neighbour) => neighbour.addresses.clone(),
            Err(_) => Vec::new(),
        };
        let kubelets = self.kubelets().await;
        let nodes = kubelets.len();
        addresses.extend(kubelets);
        try_addresses(&mut objects, addresses, self.settings().ready_within);
        let started = self.start_probe(plan, objects).await;
        let pod = plan.lease.pod_name();
        if started.is_ok()
            && let Ok(pods) = self.known_pods(&pod).await
        {
            let neighbours = match &neighbour {
                Ok(neighbour) => self.tried(neighbour).await,
                Err(why) => *why,
            };
            let report = pods.first().and_then(report);
            self.note_findings(NetworkFindings::new(report, neighbours, nodes));
        }
        self.remove_probe(&pod).await;
        started.map(drop).map_err(|failure| failure.problem)
    }

    /// Launches it, or says why there is none; nothing of one that does not start is left. An error
    /// if an order needs the room of either.
    async fn start_neighbour<'a>(
        &self,
        plan: &'a LeasePlan,
    ) -> Result<std::result::Result<Neighbour<'a>, Neighbours>> {
        let problem = match self.launch_neighbour(plan).await {
            Ok(addresses) => return Ok(Ok(Neighbour { plan, addresses })),
            Err(problem) => problem,
        };
        self.remove_probe(&plan.lease.pod_name()).await;
        match problem {
            ProbeProblem::GaveWay => Err(problem),
            ProbeProblem::Full => Ok(Err(Neighbours::NoRoom)),
            _ => Ok(Err(Neighbours::NotStarted)),
        }
    }

    /// Where it listens.
    async fn launch_neighbour(&self, plan: &LeasePlan) -> Result<Vec<SocketAddr>> {
        let objects = self.objects(plan, self.form(), ReplyStep::Absent);
        let mut objects = objects.map_err(|error| problem(&error, None))?;
        as_probe(&mut objects, plan.placement.container_port, self.settings().ttl);
        self.start_probe(plan, objects).await.map_err(|failure| failure.problem)?;
        let addresses = self.addresses_of(plan).await;
        if addresses.is_empty() { Err(ProbeProblem::NotStarted) } else { Ok(addresses) }
    }

    async fn addresses_of(&self, plan: &LeasePlan) -> Vec<SocketAddr> {
        let pods = self.known_pods(&plan.lease.pod_name()).await.unwrap_or_default();
        let port = plan.placement.container_port;
        pods.first().map(|pod| listening(pod, port)).unwrap_or_default()
    }

    /// Nobody reaches one that has ended meanwhile.
    async fn tried(&self, neighbour: &Neighbour<'_>) -> Neighbours {
        match self.addresses_of(neighbour.plan).await == neighbour.addresses {
            true => Neighbours::Tried,
            false => Neighbours::NotStarted,
        }
    }
}
