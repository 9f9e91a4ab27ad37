"""Pictures and thermal pictures: decode, check and rotate them upright."""
