/**
 * The one copy of TensorFlow.js, with the gradients of its ops registered. Everything else imports `tf` from here, and
 * plugins get it from `@llmx/core`.
 */
import * as tf from '@tensorflow/tfjs-core';
import '#tfjs-gradients';

export { tf };
