"""`treechat bench`: what jumps, forks, siblings and decoding cost on this machine, measured on the engine itself."""
