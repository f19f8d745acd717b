//! What runs in a pod.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an order wants to run in its pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// The SSH server alone.
    #[default]
    Ssh,
    /// The image's own program, its `ENTRYPOINT` and `CMD`, beside the SSH server.
    Image,
}

impl Run {
    /// As customers write it; none for every other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Ssh, Self::Image].into_iter().find(|run| run.as_str() == text)
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Image => "image",
        }
    }

    /// Whether it is what orders of earlier versions got: their bytes stay the same.
    #[must_use]
    pub fn is_ssh(&self) -> bool {
        *self == Self::Ssh
    }
}

/// How the image's own program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProgramState {
    /// It has not started yet.
    Waiting,
    /// It runs.
    Running,
    /// It has ended, and is started again.
    Failed,
}

impl ProgramState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_spelling() {
        for run in [Run::Ssh, Run::Image] {
            assert_eq!(serde_json::to_value(run).unwrap(), run.as_str());
            assert_eq!(Run::parse(run.as_str()), Some(run));
        }
        for other in ["", "SSH", "Image", "entrypoint", "image "] {
            assert_eq!(Run::parse(other), None, "{other:?}");
        }
        for state in [ProgramState::Waiting, ProgramState::Running, ProgramState::Failed] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
