"""What people see of the gateway at work: captures read again, message by message."""
