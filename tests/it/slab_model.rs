//! Sequences of operations on a pool, against a list of what is live. The fuzzer in `fuzz/` finds
//! its own sequences for the same model.

mod model;

use proptest::collection::vec;
use proptest::prelude::*;

use self::model::{Model, Op};

fn op() -> impl Strategy<Value = Op> {
    // Sizes spread over all doublings, and now and then one above the largest class.
    let size = prop_oneof![
        8 => (0_u32..24, 0_usize..1 << 24).prop_map(|(bits, low)| (1 << bits) + low % (1 << bits)),
        1 => 16_usize << 20..40 << 20,
    ];
    prop_oneof![
        8 => size.clone().prop_map(Op::Alloc),
        1 => (size.clone(), 0_u32..24).prop_map(|(size, bits)| Op::Aligned(size, bits)),
        8 => any::<usize>().prop_map(Op::Free),
        2 => size.prop_map(Op::AllocRaw),
        2 => any::<usize>().prop_map(Op::FreeRaw),
        1 => any::<usize>().prop_map(Op::FreeRawAgain),
        1 => (any::<usize>(), 1_u64..256).prop_map(|(at, by)| Op::FreeInside(at, by)),
        1 => Just(Op::Flush),
        1 => (0_usize..4).prop_map(Op::Trim),
        1 => (0_u64..4).prop_map(Op::FailCommits),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_pool_does_what_a_list_says(ops in vec(op(), 1..200), cached in any::<bool>()) {
        let mut model = Model::new(if cached { 4 << 20 } else { 0 });
        for op in ops {
            model.run(op);
            model.check();
        }
        model.end();
    }
}
