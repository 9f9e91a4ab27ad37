"""Pictures and thermal pictures: decode, check and turn them upright."""
