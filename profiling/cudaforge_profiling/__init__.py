"""What the hardware says: device data, ncu arguments, report reading, metric sets, roofline. Starts no process."""
