"""treechat's kernels: tensors in, tensors out, and a torch reference beside each. Imports torch and triton only."""
