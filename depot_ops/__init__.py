"""The operations layer: keeps the depot alive and proves that it can be restored."""
