"""`treechat bench`: measure jumps, forks, siblings and decoding on this machine, with the engine itself."""
