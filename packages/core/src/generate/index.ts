export { generate, generateText, type GenerationOptions } from './generate.ts';
export { argmax, type Candidate, candidates, draw, samplingNumber, type SamplingOptions } from './sample.ts';
