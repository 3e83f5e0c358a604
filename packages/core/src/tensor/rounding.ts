/** How a result is kept. */
export interface Rounding {
  /**
   * Whether the result may be kept in the precision of products, since products are what reads it or what made it: with
   * `precision: bf16` in bfloat16, half the memory. Without it results are float32.
   */
  readonly rounded?: boolean | undefined;
}
