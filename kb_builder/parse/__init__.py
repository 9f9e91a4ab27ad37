"""Parse: turn raw answers of any form into clean texts."""
