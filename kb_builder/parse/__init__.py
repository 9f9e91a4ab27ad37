"""Parse: turn raw answers into clean texts, whatever form a model gave them."""
