use super::*;
#[test]
fn ids_are_unique() {
    let mut ids: Vec<_> = Phase::ALL.iter().flat_map(|phase| phase.checks()).map(|check| check.id).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
}
