//! How long a check may take.

use super::report::{Area, Check};
use futures::future::LocalBoxFuture;
use std::time::Duration;
use tokio::time::timeout;

/// What one check may take that has no limit of its own.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Checks of the same area, or of several.
pub(super) type Checks<'a> = LocalBoxFuture<'a, Vec<Check>>;

/// These checks, or that they have taken too long.
pub(super) async fn within(
    area: Area,
    limit: Duration,
    checks: impl Future<Output = Vec<Check>>,
) -> Vec<Check> {
    timeout(limit, checks).await.unwrap_or_else(|_| {
        let text = format!("no result within {} s", limit.as_secs());
        vec![area.fail(text, "try again; if it stays so, look at what is slow there")]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Group, Outcome};

    #[tokio::test]
    async fn what_does_not_answer_is_a_failure_of_its_area() {
        let area = Area::new(Group::Mints, "mint");
        let checks = within(area, Duration::from_millis(1), std::future::pending()).await;
        let [check] = checks.as_slice() else { panic!("{checks:?}") };
        assert_eq!((check.group, check.area, check.outcome), (Group::Mints, "mint", Outcome::Fail));
    }
}
