import { at, causalConvolution, customOp, dims, type Params, type Rng, tf } from '@llmx/core';

import { documentIndex } from '../cell/documents.ts';
import { span } from './parts.ts';

/** `<path>.weight` [taps, channels] and `<path>.bias` [channels], both uniform in +- 1 / sqrt(taps). */
export function initConvolution(rng: Rng, path: string, taps: number, channels: number): Params {
  const bound = 1 / Math.sqrt(taps);
  return {
    [`${path}.weight`]: rng.uniform(`${path}.weight`, [taps, channels], -bound, bound),
    [`${path}.bias`]: rng.uniform(`${path}.bias`, [channels], -bound, bound),
  };
}

/**
 * Causal depthwise convolution over time that does not reach across documents.
 *
 * @param x float32 [batch, time, channels]
 * @param segments int32 [batch, time]; absent: one document
 */
export function convolution(params: Params, path: string, x: tf.Tensor, segments?: tf.Tensor): tf.Tensor {
  const [weight, bias] = [at(params, `${path}.weight`), at(params, `${path}.bias`)];
  if (segments === undefined) return causalConvolution(x, weight, bias);
  return segmentedConvolution(x, weight, bias, segments);
}

/** `x` moved `lag` positions later (earlier if negative) along time, zeros moving in. */
function shift(x: tf.Tensor, lag: number): tf.Tensor {
  const [batch, time, channels] = dims(x, 3);
  const distance = Math.min(Math.abs(lag), time);
  if (distance === 0) return x;
  const gap = tf.zeros([batch, distance, channels]);
  const rest = tf.slice(x, [0, lag > 0 ? 0 : distance, 0], [-1, time - distance, -1]);
  return tf.concat(lag > 0 ? [gap, rest] : [rest, gap], 1);
}

/** 1 where the position `lag` earlier is of the same document, float32 [batch, time, 1]. */
function sameDocument(documents: tf.Tensor, lag: number): tf.Tensor {
  // Documents count from 0, so that nothing is of document -1.
  const numbers = tf.expandDims(tf.cast(tf.add(documents, tf.scalar(1, 'int32')), 'float32'), 2);
  return tf.cast(tf.equal(numbers, shift(numbers, lag)), 'float32');
}

/** y[t] = bias + sum over taps of weight[tap] x[t - lag], where t - lag is of the document of t. */
function segmentedConvolution(x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor, segments: tf.Tensor): tf.Tensor {
  const [taps] = dims(weight, 2);
  const lags = Array.from({ length: taps }, (_, tap) => taps - 1 - tap);
  return customOp(
    [x, weight, bias],
    (save) => {
      save([x, weight]);
      const documents = documentIndex(segments);
      const rows = tf.unstack(weight);
      const seen = lags.map((lag) => tf.mul(shift(x, lag), sameDocument(documents, lag)));
      return tf.add(tf.addN(seen.map((part, tap) => tf.mul(part, rows[tap]!))), bias);
    },
    (dy, [savedX, savedWeight]) => {
      const documents = documentIndex(segments);
      const rows = tf.unstack(savedWeight!);
      const reaching = lags.map((lag) => tf.mul(dy, sameDocument(documents, lag)));
      const dx = tf.addN(reaching.map((part, tap) => tf.mul(shift(part, -lags[tap]!), rows[tap]!)));
      const dWeight = reaching.map((part, tap) => tf.sum(tf.mul(part, shift(savedX!, lags[tap]!)), [0, 1]));
      return [dx, tf.stack(dWeight), tf.sum(dy, [0, 1])];
    },
  );
}

/**
 * The convolution of new positions, and the inputs that later ones will see.
 *
 * @param past the last taps - 1 inputs, oldest first, float32 [batch, taps - 1, channels]
 * @returns `past` for the next call, and `all`: the old one and the new inputs
 */
export function convolutionStep(
  params: Params,
  path: string,
  x: tf.Tensor,
  past: tf.Tensor,
): { y: tf.Tensor; past: tf.Tensor; all: tf.Tensor } {
  const [, known] = dims(past, 3);
  const all = tf.concat([past, x], 1);
  const y = causalConvolution(all, at(params, `${path}.weight`), at(params, `${path}.bias`));
  const [, time] = dims(x, 3);
  return { y: span(y, known, time), past: span(all, time, known), all };
}
