"""What the scripts share: patch files, environments, applying."""
