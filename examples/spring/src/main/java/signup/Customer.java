package signup;

import java.util.UUID;
import javax.persistence.Column;
import javax.persistence.Entity;
import javax.persistence.GeneratedValue;
import javax.persistence.GenerationType;
import javax.persistence.Id;
import org.hibernate.annotations.Generated;
import org.hibernate.annotations.GenerationTime;
import org.hibernate.annotations.Type;

@Entity
public class Customer {
  @Id
  @GeneratedValue(strategy = GenerationType.IDENTITY)
  public Long id;

  public String phone;

  // The trigger's: never written, and read back after each INSERT and UPDATE.
  @Generated(GenerationTime.ALWAYS)
  @Column(name = "verification_id", insertable = false, updatable = false)
  @Type(type = "pg-uuid")
  public UUID verificationId;
}
