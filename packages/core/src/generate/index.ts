export { generate, generateText, type GenerationOptions } from './generate.ts';
