/** TensorFlow.js's gradient registrations, bundled by scripts/build.mjs; imported for its effect. */
declare module '#tfjs-gradients';
