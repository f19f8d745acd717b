//! What the latest probe pod has shown, and what follows from it.

use super::set_identity::SetIdentity;
use crate::backend::cluster::{Probe, ProbeProblem};
use crate::backend::policy::PolicySet;
use crate::model::refusal::{ErrorType, Refusal};
use std::sync::Arc;

/// What is known of whether pods start, and of which policies' pods.
#[derive(Clone)]
pub(super) struct Probed {
    pub(super) state: ProbeState,
    /// None: of any.
    policies: Option<SetIdentity>,
}

impl Probed {
    /// A service with these pods starts so.
    pub(super) fn new(probe: Option<&dyn Probe>) -> Self {
        let state = match probe {
            Some(_) => ProbeState::First,
            None => ProbeState::Done(None),
        };
        Self { state, policies: None }
    }

    /// A pod of these policies was probed.
    pub(super) fn done(problem: Option<ProbeProblem>, set: &Arc<dyn PolicySet>) -> Self {
        Self { state: ProbeState::Done(problem), policies: Some(SetIdentity::of(set)) }
    }

    /// Another pod is probed next; whether that is new.
    pub(super) fn set_changed(&mut self) -> bool {
        let is_done = self.state.is_done();
        if is_done {
            self.state = ProbeState::Changed;
        }
        is_done
    }

    /// What is known of the pods of these policies.
    pub(super) fn state_of(&self, set: &Arc<dyn PolicySet>) -> ProbeState {
        if self.is_of_others(set) { ProbeState::Changed } else { self.state }
    }

    /// Whether it is about other policies than these, and the pods of both have not been compared
    /// yet.
    pub(super) fn is_of_others(&self, set: &Arc<dyn PolicySet>) -> bool {
        self.state.is_done() && self.policies.as_ref().is_some_and(|probed| !probed.is_of(set))
    }
}

/// What is known of whether pods start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeState {
    /// The first probe has not ended.
    First,
    /// The policies make another pod now, and the probe of it has not ended.
    Changed,
    Done(Option<ProbeProblem>),
}

impl ProbeState {
    pub(super) fn is_done(self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// Why the service is not ready. A change of policies is not such a reason: what was sold is
    /// served, and orders wait.
    pub(super) fn unready_reason(self) -> Option<&'static str> {
        match self {
            Self::First => Some("a probe pod is being started: nothing is sold before that"),
            Self::Changed => None,
            Self::Done(problem) => {
                problem.filter(|problem| problem.stops_sales()).map(ProbeProblem::message)
            }
        }
    }

    /// What the operator should know though pods are sold.
    pub(super) fn warning(self) -> Option<&'static str> {
        match self {
            Self::First | Self::Changed => None,
            Self::Done(problem) => {
                problem.filter(|problem| !problem.stops_sales()).map(ProbeProblem::message)
            }
        }
    }

    /// The refusal of a new pod.
    pub(super) fn check(self) -> Result<(), Refusal> {
        match self {
            Self::First | Self::Changed => Err(being_tested()),
            Self::Done(Some(problem)) if problem.stops_sales() => Err(refusal(
                "new pods do not start right now, which the operator can see; try again later",
            )),
            Self::Done(_) => Ok(()),
        }
    }
}

/// The refusal of a new pod for which nobody waits.
pub(super) fn being_tested() -> Refusal {
    refusal("new pods are being tested; try again in a minute")
}

fn refusal(text: &str) -> Refusal {
    Refusal::new(ErrorType::ResourceUnavailable, text).with_details("your token was not taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ProbeProblem; 13] = [
        ProbeProblem::Image,
        ProbeProblem::ServerImage,
        ProbeProblem::Port,
        ProbeProblem::Exited,
        ProbeProblem::Login,
        ProbeProblem::NotStarted,
        ProbeProblem::Refused,
        ProbeProblem::NoUserNamespaces,
        ProbeProblem::NoImagePrograms,
        ProbeProblem::Full,
        ProbeProblem::GaveWay,
        ProbeProblem::Unavailable,
        ProbeProblem::Policies,
    ];

    #[test]
    fn a_problem_stops_sales_or_is_a_warning() {
        for problem in ALL {
            let state = ProbeState::Done(Some(problem));
            let is_closed = state.check().is_err();
            assert_eq!(is_closed, problem.stops_sales(), "{problem:?}");
            assert_eq!(state.unready_reason().is_some(), is_closed, "{problem:?}");
            assert_eq!(state.warning().is_some(), !is_closed, "{problem:?}");
            // What stops sales is looked at again.
            assert!(!is_closed || problem.may_pass(), "{problem:?}");
        }
        for open in [ProbeProblem::Full, ProbeProblem::GaveWay, ProbeProblem::NoUserNamespaces] {
            assert!(ProbeState::Done(Some(open)).check().is_ok(), "{open:?}");
        }
    }

    #[test]
    fn nothing_is_sold_before_the_first_probe_has_ended() {
        let refused = ProbeState::First.check().unwrap_err();
        assert_eq!(refused.code, ErrorType::ResourceUnavailable);
        assert!(ProbeState::First.unready_reason().is_some());
        // What was sold is served while the pod of other policies is probed.
        assert!(ProbeState::Changed.check().is_err());
        assert_eq!(ProbeState::Changed.unready_reason(), None);
        let open = Probed::new(None).state;
        assert_eq!((open.check(), open.unready_reason(), open.warning()), (Ok(()), None, None));
    }
}
