"""An application: the tables and figures of Cui et al. (CVPR 2019), published and measured."""
