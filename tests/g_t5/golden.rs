//! Both versions of T5 against numbers from PyTorch and transformers.

use super::{BOTH, Tensors, distance, fixture};
use imagen::array::DType;
use imagen::text::t5::{Residency, T5, T5Encoder, TokenBatch};

/// The padded prompts of `expected.safetensors`.
fn prompts(expected: &Tensors) -> TokenBatch {
    let (shape, ids) = expected.longs("input_ids");
    let (_, mask) = expected.longs("attention_mask");
    TokenBatch {
        texts: shape[0],
        length: shape[1],
        ids: ids.iter().map(|&id| id as u32).collect(),
        mask: mask.iter().map(|&seen| seen == 1).collect(),
    }
}

/// The first two prompts with their padding, and the labels.
fn two(expected: &Tensors) -> (TokenBatch, TokenBatch) {
    let all = prompts(expected);
    let (shape, labels) = expected.longs("labels");
    let texts = TokenBatch {
        texts: shape[0],
        length: all.length,
        ids: all.ids[..shape[0] * all.length].to_vec(),
        mask: all.mask[..shape[0] * all.length].to_vec(),
    };
    let ids: Vec<u32> = labels.iter().map(|&id| id.max(0) as u32).collect();
    // -100 is PyTorch's mark for a label that does not count.
    let mask = labels.iter().map(|&id| id >= 0).collect();
    (texts, TokenBatch { texts: shape[0], length: shape[1], ids, mask })
}

// ANCHOR: g1_hidden_states_logits_loss_and_gradients_are_those_of_transformers
/// G1: hidden states, logits and loss within 1e-5, gradients within 1e-4, in f64 and in f32.
#[test]
fn g1_hidden_states_logits_loss_and_gradients_are_those_of_transformers() {
    for version in BOTH {
        let expected = Tensors::read(&fixture(version).join("expected.safetensors"));
        for dtype in [DType::F64, DType::F32] {
            let model = T5::load(&fixture(version), dtype).unwrap();
            let states = model.encode(&prompts(&expected));
            assert!(distance(states.array(), &expected.floats("last_hidden_state")) < 1e-5, "{version} {dtype}");

            let (texts, labels) = two(&expected);
            let logits = model.decode(&model.shifted(&labels), &texts, &model.encode(&texts));
            assert!(distance(logits.array(), &expected.floats("logits")) < 1e-5, "{version} {dtype}");
            let loss = model.loss(&texts, &labels);
            assert!((loss.item() - expected.floats("loss").item()).abs() < 1e-5, "{version} {dtype}");

            let gradients = loss.backward();
            let wanted: Vec<String> = expected.names().into_iter().filter(|name| name.starts_with("grad.")).collect();
            assert_eq!(wanted.len(), 3);
            for name in wanted {
                let param = name.strip_prefix("grad.").unwrap();
                let param = model.parameters().iter().find(|p| p.name() == param).unwrap();
                let gradient = gradients.get(&param.tensor()).unwrap();
                assert!(distance(gradient, &expected.floats(&name)) < 1e-4, "{version} {dtype} {name}");
            }
        }
    }
}
// ANCHOR_END: g1_hidden_states_logits_loss_and_gradients_are_those_of_transformers

// ANCHOR: g1_the_frozen_encoder_gives_the_same_hidden_states
/// G1: the frozen encoder too, whole in memory and read layer by layer, which are the same to the bit.
#[test]
fn g1_the_frozen_encoder_gives_the_same_hidden_states() {
    for version in BOTH {
        let expected = Tensors::read(&fixture(version).join("expected.safetensors"));
        let [whole, streamed] = [Residency::Whole, Residency::Streamed]
            .map(|residency| T5Encoder::open(&fixture(version), 512, residency).unwrap());
        assert!(streamed.is_streamed() && !whole.is_streamed());
        let states = whole.forward(&prompts(&expected));
        assert!(distance(states.array(), &expected.floats("last_hidden_state")) < 1e-5, "{version}");
        assert_eq!(states.array().to_f32(), streamed.forward(&prompts(&expected)).array().to_f32());
        let (again, weights) = whole.forward_with_weights(&prompts(&expected)).unwrap();
        assert!(distance(again.array(), states.array()) < 1e-5);
        assert_eq!(weights.len(), whole.config().num_layers);
    }
}
// ANCHOR_END: g1_the_frozen_encoder_gives_the_same_hidden_states
