"""An application: DD-Net, which recognises actions from skeleton clips."""
