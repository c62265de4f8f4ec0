"""What strangers' files can do: nothing but be refused."""
