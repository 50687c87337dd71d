"""The kernels of treechat: tensors in, tensors out, each with a torch reference. Imports only torch and triton."""
