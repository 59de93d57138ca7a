"""MoBA in Triton: forward, backward, selection and coverage with a budget that is device data.

Read in this order: `blocks` (the padded row space), `select`, `lists`, `forward_union`,
`forward_gather`, `backward_gather`, `op`. kernels/README.md has the mathematics and numbers.
"""
